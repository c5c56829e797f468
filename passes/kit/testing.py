"""What a test of a pass needs: golden texts, declines, and equivalence in units of rounding.

For the tests of users' passes as for our own. Failures are AssertionErrors that show a difference of texts.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fretsaw.ir import Graph, TensorType, evaluate, parse, run, to_text, verify
from fretsaw.ir.types import numpy_dtype
from fretsaw.passes.api import Decline, Pass
from fretsaw.passes.kit.debug import debug
from fretsaw.passes.kit.driver import run_rules

SIZES = {"B": 2, "S": 3, "T": 5}  # of the symbols in tests; another symbol gets the smallest size of its range
ORDERS = 5  # random orders of work that must give the same text


def read(text: str, dtype: str = "f32", seed: int = 0) -> Graph:
    """The graph of ``text`` with every f32 read as ``dtype``, verified, constants filled by seed."""
    graph = parse(text.strip().replace("f32", dtype), seed=seed)
    verify(graph)
    return graph


def golden(p: Pass, before: str, after: str) -> None:
    """``p`` turns one text into the other, leaves the result alone, and does not depend on the order of its work."""
    graph = read(before)
    with debug():
        result = p.run(graph).graph
    verify(result)
    same_text(to_text(result), after.strip(), "the text after the pass")
    same_text(to_text(parse(to_text(result))), to_text(result), "the text read back")
    if p.run(result).graph is not result:
        raise AssertionError(f"{p.name} changes its own result: it is not idempotent")
    for seed in range(ORDERS if p.roots else 0):
        shuffled = run_rules(graph, p.members or (p,), shuffle=random.Random(seed)).graph
        same_text(to_text(sorted_consts(shuffled)), to_text(sorted_consts(result)), f"order of work {seed}")


def untouched(p: Pass, text: str) -> list[tuple[str, str]]:
    """``p`` leaves the graph alone; returns (reason, node) of its declines."""
    graph = read(text)
    with debug():
        outcome = p.run(graph)
    if outcome.graph is not graph:
        raise AssertionError(f"{p.name} changed a graph that it should leave alone:\n{to_text(outcome.graph)}")
    return [named(d) for d in outcome.declines]


def named(decline: Decline) -> tuple[str, str]:
    """The reason, and the name of the node that stood in the way."""
    return decline.reason, decline.at.results[0].name if decline.at.results else decline.at.op


def equivalent(p: Pass, text: str, bound: float) -> None:
    """In f64 and in f32, outputs before and after differ by at most ``bound`` eps, on three seeds."""
    for dtype in ("f64", "f32"):
        for seed in range(3):
            graph = read(text, dtype, seed)
            result = p.run(graph).graph
            if result is graph:
                raise AssertionError(f"{p.name} changed nothing")
            error = error_in_eps(graph, result, seed)
            if not error <= bound:
                raise AssertionError(f"{p.name}: outputs differ by {error:.3g} eps in {dtype}, seed {seed}; {bound=}")


def error_in_eps(before: Graph, after: Graph, seed: int) -> float:
    """Largest difference over the largest magnitude, in units of the output dtype's eps; integers must be equal."""
    inputs = feed(before, seed)
    worst = 0.0
    for a, b in zip(run(before, inputs), run(after, inputs), strict=True):
        if a.dtype.kind == "f":
            worst = max(worst, float(np.abs(a - b).max() / np.abs(a).max() / np.finfo(a.dtype).eps))
        elif not np.array_equal(a, b):
            raise AssertionError("integer outputs differ")
    return worst


def feed(graph: Graph, seed: int, sizes: Mapping[str, int] = SIZES) -> dict[str, object]:
    """Random inputs: normal floats, small non-negative integers."""
    rng = np.random.default_rng(seed)
    known = {**{name: low for name, (low, _) in graph.dims.items()}, **sizes}
    out: dict[str, object] = {}
    for value in graph.inputs:
        kind = value.type
        assert isinstance(kind, TensorType)
        shape = tuple(evaluate(d, known) for d in kind.shape)
        floats = kind.dtype in ("f32", "f64")
        data = rng.standard_normal(shape) if floats else rng.integers(0, 4, shape)
        out[value.name] = np.asarray(data).astype(numpy_dtype(kind.dtype))
    return out


def sorted_consts(graph: Graph) -> Graph:
    """The graph with constants by name, so that the order in which edits added them does not show."""
    return replace(graph, consts=dict(sorted(graph.consts.items(), key=lambda item: item[0].name)))


def same_text(got: str, want: str, what: str) -> None:
    """Raise with the difference, line by line, where two texts differ."""
    if got != want:
        lines = difflib.unified_diff(want.splitlines(), got.splitlines(), "expected", "got", lineterm="", n=1)
        raise AssertionError("\n".join([f"{what} is another one", *lines]))
