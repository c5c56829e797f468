"""What holds for every pass on generated graphs: it verifies, computes the same, comes to rest, and does not depend on
the order of its work."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from fretsaw.ir import Const, DType, Graph, parse, run, to_text, verify
from fretsaw.passes.api import Keeps, Outcome, Pass
from fretsaw.passes.evidence.compare import algebra_bound, difference
from fretsaw.passes.kit.driver import run_rules
from fretsaw.passes.pipeline import ON_REQUEST, PIPELINE
from fretsaw.tools.fuzz.generate import random_graph
from fretsaw.tools.fuzz.patterns import random_pieces
from tests.graphs import sources
from tests.passes.kit import sorted_nodes

# Packing wants a whole decoder or encoder, and sparse attention a packed one: tests/passes/test_packed_families.py and
# tests/passes/sparse/test_families.py run them on one of every family.
WHOLE_PROGRAMS = ("pack_tokens", "pack_segments", "hoist_rows", "sparse_attention")
PASSES = {
    p.name: p for phase in PIPELINE.values() for p in (*phase, *ON_REQUEST) if p.name not in WHOLE_PROGRAMS
}  # fmt: skip
DTYPES: tuple[DType, DType] = ("f32", "f64")
REGRESSIONS = sorted((Path(__file__).parents[1] / "regressions" / "passes").glob("*.fir"))
SLACK = 16  # times the pipeline's own bound: these graphs stack norms, which lift rounding of small values


def inputs(seed: int, dtype: str) -> dict[str, object]:
    """Single precision numbers in either dtype."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 5, 8)).astype(np.float32)
    positions = np.broadcast_to(np.arange(5), (2, 5)).astype(np.int64)
    return {"x": x.astype(np.float64 if dtype == "f64" else np.float32), "positions": positions}


def check(p: Pass, f32: Graph, f64: Graph, seed: int) -> bool:
    """Every property of ``p`` on one graph; returns whether it changed it."""
    after = p.run(f32).graph
    verify(after)
    if to_text(after) == to_text(f32):
        assert after is f32, "an unchanged graph must be the same object"
        return False
    again = p.run(after).graph
    assert again is after, f"not idempotent:\n{to_text(after)}\n==>\n{to_text(again)}"
    given = {v.name: c for v, c in after.consts.items()}
    assert parse(to_text(after), given) == after
    feeds = inputs(seed, "f32")
    narrow = difference(run(f32, feeds), run(after, feeds))
    if p.keeps == "bits":
        assert narrow == 0, f"promises bits, differs by {narrow}"
    if p.keeps == "budget":  # it may move the outputs; how far is measured against limits
        return True
    feeds = inputs(seed, "f64")
    wide = difference(run(f64, feeds), run(p.run(f64).graph, feeds))
    bound = SLACK * algebra_bound(f64, rounds_constants=p.rounds_constants)
    assert wide <= (0 if p.keeps == "bits" else bound), f"differs by {wide} in f64"
    for order in range(5 if p.roots else 0):
        shuffled = run_rules(f32, p.members or (p,), shuffle=random.Random(order)).graph
        assert to_text(sorted_nodes(shuffled)) == to_text(sorted_nodes(after)), f"order {order}"
    return True


ORDER = [
    p for phase in ("canonical", "fused") for p in (*PIPELINE[phase], *(e for e in ON_REQUEST if e.phase == phase))
]  # fmt: skip
# Their patterns are larger than a piece: the tests of these passes have them, and those of the families.
NOT_GENERATED = {"raise_attention", "raise_experts", "split_head_slices", "widen_partial_rope", "drop_casts"}


def check_in_order(source: int | random.Random, seed: int) -> Counter[str]:
    """Every property of every pass on what the passes before it leave; returns how often each changed the graph."""
    state = source if isinstance(source, int) else source.getrandbits(48)
    f32, f64 = (random_pieces(random.Random(state), dtype) for dtype in DTYPES)
    verify(f32)
    hits: Counter[str] = Counter()
    for p in ORDER:
        try:
            hits[p.name] += check(p, f32, f64, seed)
        except Exception as error:
            raise AssertionError(f"{p.name}, seed {state}: {error}\n{to_text(f32)}") from error
        f32, f64 = p.run(f32).graph, p.run(f64).graph
    return hits


def test_passes_in_order_on_generated_graphs() -> None:
    hits: Counter[str] = Counter()
    for seed in range(60):
        hits += check_in_order(seed, seed)
    assert {p.name for p in ORDER} - set(hits) <= NOT_GENERATED, "the generator does not reach these passes any more"


@settings(max_examples=15, deadline=None)
@given(source=sources())
def test_passes_in_order_shrinks(source: random.Random) -> None:
    check_in_order(source, 0)


@pytest.mark.parametrize("name", sorted(PASSES))
def test_passes_alone_on_generated_graphs(name: str) -> None:
    """Not after the passes that come before it: its guards are all it has."""
    for seed in range(8):
        f32, f64 = (random_pieces(random.Random(seed), dtype) for dtype in DTYPES)
        check(PASSES[name], f32, f64, seed)


def test_every_pass_on_the_whole_catalogue() -> None:
    """Graphs of any ops, which cannot all be run: a pass ends well or refuses a program that it is not for."""
    for seed in range(150):
        graph = random_graph(random.Random(seed))
        for p in PASSES.values():
            after = p.run(graph).graph
            if after is graph:
                continue
            verify(after)
            assert [(v.name, v.type) for v in after.outputs] == [(v.name, v.type) for v in graph.outputs]
            assert to_text(after) != to_text(graph) and p.run(after).graph is after, (p.name, seed)
            assert parse(to_text(after), {v.name: c for v, c in after.consts.items()}) == after


@pytest.mark.parametrize("path", REGRESSIONS, ids=[p.stem for p in REGRESSIONS])
def test_graphs_that_once_failed(path: Path) -> None:
    """Files are named after the pass: ``drop_noops.order_of_outputs.fir``."""
    p, text = PASSES[path.name.split(".")[0]], path.read_text().strip()
    f32, f64 = (parse(text.replace("f32", dtype), seed=0) for dtype in DTYPES)
    check(p, f32, f64, seed=0)


def test_the_properties_can_fail() -> None:
    f32, f64 = (random_pieces(random.Random(7), dtype) for dtype in DTYPES)

    def broken(keeps: Keeps, change: Callable[[Graph], Graph]) -> Pass:
        return Pass("broken", "", keeps, "canonical", lambda graph: Outcome(change(graph)))

    with pytest.raises(AssertionError, match="must be the same object"):
        check(broken("bits", lambda g: replace(g)), f32, f64, 0)
    with pytest.raises(AssertionError, match="not idempotent"):
        check(broken("bits", lambda g: replace(g, name=g.name + "x")), f32, f64, 0)
    scaled = broken("algebra", lambda g: g if g.name == "done" else _scaled(g, 1 + 1e-9))
    with pytest.raises(AssertionError, match="differs by .* in f64"):
        check(scaled, f32, f64, 0)
    with pytest.raises(AssertionError, match="promises bits, differs by"):
        check(broken("bits", lambda g: g if g.name == "done" else _scaled(g, 1 + 1e-6)), f32, f64, 0)


def _scaled(graph: Graph, factor: float) -> Graph:
    """Every constant a little larger."""
    consts = {}
    for value, const in graph.consts.items():
        array = const.load()
        consts[value] = Const.of((array * array.dtype.type(factor)).astype(array.dtype), const.type.dtype)
    return replace(graph, consts=consts, name="done")
