"""What the tests of passes share: golden texts, random inputs, errors in units of rounding."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np

from fretsaw.ir import Graph, TensorType, evaluate, parse, run, to_text, verify
from fretsaw.ir.types import numpy_dtype
from fretsaw.passes.api import Decline, Pass, apply
from fretsaw.passes.kit.driver import run_rules

SIZES = {"B": 2, "S": 3, "T": 5}


def read(text: str, dtype: str = "f32", seed: int = 0) -> Graph:
    """The graph of ``text`` with every f32 read as ``dtype``, verified, constants filled by seed."""
    graph = parse(text.strip().replace("f32", dtype), seed=seed)
    verify(graph)
    return graph


def golden(p: Pass, before: str, after: str) -> None:
    """``p`` turns one text into the other, leaves the result alone, and does not depend on the order of its work."""
    graph = read(before)
    result, _ = apply(p, graph)
    verify(result)
    assert to_text(result) == after.strip()
    assert to_text(parse(to_text(result))) == to_text(result)
    assert apply(p, result)[0] is result, "not idempotent"
    for seed in range(5 if p.fn or p.members else 0):
        shuffled = run_rules(graph, p.members or (p,), shuffle=random.Random(seed)).graph
        assert to_text(sorted_nodes(shuffled)) == to_text(sorted_nodes(result))


def sorted_nodes(graph: Graph) -> Graph:
    """The graph with constants by name, so that the order in which edits added them does not show."""
    from dataclasses import replace

    return replace(graph, consts=dict(sorted(graph.consts.items(), key=lambda item: item[0].name)))


def untouched(p: Pass, text: str) -> list[tuple[str, str]]:
    """``p`` leaves the graph alone; returns (reason, node) of its declines."""
    graph = read(text)
    result, declines = apply(p, graph)
    assert result is graph
    return [named(d) for d in declines]


def named(decline: Decline) -> tuple[str, str]:
    return decline.reason, decline.at.results[0].name if decline.at.results else decline.at.op


def feed(graph: Graph, seed: int, sizes: Mapping[str, int] = SIZES) -> dict[str, object]:
    """Random inputs: normal floats, small non-negative integers."""
    rng = np.random.default_rng(seed)
    out: dict[str, object] = {}
    for value in graph.inputs:
        kind = value.type
        assert isinstance(kind, TensorType)
        shape = tuple(evaluate(d, sizes) for d in kind.shape)
        floats = kind.dtype in ("f32", "f64")
        data = rng.standard_normal(shape) if floats else rng.integers(0, 4, shape)
        out[value.name] = np.asarray(data).astype(numpy_dtype(kind.dtype))
    return out


def error_in_eps(before: Graph, after: Graph, seed: int) -> float:
    """Largest difference over the largest magnitude, in units of the output dtype's eps."""
    inputs = feed(before, seed)
    worst = 0.0
    for a, b in zip(run(before, inputs), run(after, inputs), strict=True):
        if a.dtype.kind == "f":
            worst = max(worst, float(np.abs(a - b).max() / np.abs(a).max() / np.finfo(a.dtype).eps))
        else:
            assert np.array_equal(a, b)
    return worst


def equivalent(p: Pass, text: str, bound: float) -> None:
    """In f64 and in f32, outputs before and after differ by at most ``bound`` eps, on three seeds."""
    for dtype in ("f64", "f32"):
        for seed in range(3):
            graph = read(text, dtype, seed)
            result, _ = apply(p, graph)
            assert result is not graph
            assert error_in_eps(graph, result, seed) <= bound, (dtype, seed)
