"""The cost of compiling a graph grows linearly with its layers. Counted in calls: they are the same on any machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType

import pytest

from fretsaw.ir import Graph, parse, to_text, verify
from fretsaw.passes.pipeline import run_pipeline
from tests.passes.llama_text import llama

PHASES = ("canonical", "fused", "packed")


def calls(work: Callable[[], object]) -> int:
    """Calls of Python functions while ``work`` runs."""
    count = 0

    def tick(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(tick)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def ratio(work: Callable[[Graph], object]) -> float:
    """Calls per added layer from 8 to 16 layers over those from 4 to 8: 1 where it is linear, 2 where quadratic."""
    for layers in (4, 8):
        work(parse(llama(layers)))  # caches that live for the process
    four, eight, sixteen = (calls(lambda g=parse(llama(n)): work(g)) for n in (4, 8, 16))  # type: ignore[misc]
    return (sixteen - eight) / 8 / ((eight - four) / 4)


WORK: dict[str, Callable[[Graph], object]] = {
    "verify": verify,
    "print": to_text,
    "read": lambda graph: parse(to_text(graph)),
    "canonical": lambda graph: run_pipeline(graph, ("canonical",)),
    "all phases": lambda graph: run_pipeline(graph, PHASES),
}


@pytest.mark.parametrize("name", WORK)
def test_calls_grow_linearly(name: str) -> None:
    assert 0.95 < ratio(WORK[name]) < 1.05


def test_the_ratio_sees_a_quadratic_cost() -> None:
    def pairs(graph: Graph) -> int:
        return sum(graph.position(a) < graph.position(b) for a in graph.nodes for b in graph.nodes)

    assert ratio(pairs) > 1.8


def test_thirty_two_layers_take_seconds() -> None:
    """Three seconds is the bar on a quiet machine; this one only catches what is far from it."""
    graph = parse(llama(32))
    start = time.perf_counter()
    run_pipeline(graph, ("canonical",))
    assert time.perf_counter() - start < 15
