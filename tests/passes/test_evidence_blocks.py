"""Cutting graphs where one value carries everything: where, what is skipped, what may change its meaning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fretsaw.ir import Graph, evaluate_graph, parse
from fretsaw.ir.errors import PassError
from fretsaw.passes.evidence.blocks import cuts, split
from fretsaw.passes.evidence.check import Checker
from fretsaw.passes.evidence.feeds import feed, sequences
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.evidence.trace import Trace
from fretsaw.passes.kit.ledger import Evidence
from fretsaw.passes.pipeline import run_pipeline
from tests.passes.llama_text import llama
from tests.passes.planted import planted, with_const

BLOCKS = EvidenceOptions(mode="blocks", tokens=24)


def model(layers: int = 3) -> Graph:
    return parse(llama(layers), seed=0)


def names(graph: Graph) -> list[str]:
    return [v.name for v in cuts(graph)]


def test_cuts_are_the_residual_stream() -> None:
    """Angles are computed before the first layer and read in every one; they do not depend on the tokens."""
    stream = [f"l{i}.{part}" for i in range(3) for part in ("h", "x")]
    assert names(model()) == ["emb", *stream, "fn.x", "fn"]
    packed = run_pipeline(model()).graph
    assert [n for n in names(packed) if n in stream] == stream[:-2]  # the last layer runs on the wanted rows only


def test_a_value_that_skips_layers_prevents_cuts() -> None:
    text = llama(3).replace("add(%l2.h, %l2.d)", "add(%l0.x, %l2.d)")
    assert [n for n in names(parse(text, seed=0)) if n.startswith("l")] == ["l0.h", "l0.x", "l2.x"]


def test_an_output_in_the_middle_prevents_cuts() -> None:
    text = llama(2).replace("-> (%logits)", "-> (%l0.x, %logits)")
    assert names(parse(text, seed=0)) == ["emb", "l0.h"]


CACHED = """
graph @c(%x: f32[T, 8], %kv: handle<kv_cache>) -> (%y) {
  dim T in [1, 64]
  %a: f32[T, 8] = silu(%x)
  %k: f32[T, 1, 8] = reshape(%a) {shape = [T, 1, 8]}
  kv_append(%kv, %k, %k) {layer = 0}
  %b: f32[T, 8] = exp(%a)
  %q: f32[T, 1, 8] = reshape(%b) {shape = [T, 1, 8]}
  %o: f32[T, 1, 8] = cached_attention(%kv, %q) {layer = 0, scale = 1.0, value_size = 8}
  %z: f32[T, 1, 8] = silu(%o)
  %y: f32[T, 1, 8] = neg(%z)
}"""


def test_the_cache_carries_data_past_a_value() -> None:
    """Between append and attention keys lie in the cache, so %b does not carry everything."""
    graph = replace(parse(CACHED.strip()), phase="packed")
    assert names(graph) == ["a", "o", "z"]
    first, second, third = (block.graph for block in split(graph, ["a", "o"]))
    assert [n.op for n in first.nodes] == ["silu"]
    assert [n.op for n in second.nodes] == ["reshape", "kv_append", "exp", "reshape", "cached_attention"]
    assert [v.name for v in second.inputs] == ["a", "kv"] and [v.name for v in third.inputs] == ["o"]


def test_blocks_compute_what_the_graph_computes() -> None:
    graph = model()
    calibration, _ = sequences(graph, BLOCKS, 24)
    trace = Trace(calibration)
    (logits,) = trace.record(graph)
    given: np.ndarray | None = None
    for block in split(graph, names(graph)):
        if block.cut is not None:
            assert given is not None and np.array_equal(trace.real[block.cut.name], given)
        (given,) = trace.outputs(graph, block, given)
    want = next(iter(evaluate_graph(graph, feed(graph, calibration)).values()))
    assert np.array_equal(logits, want)
    assert given is not None and np.array_equal(given, want)


def check(graph: Graph, after: Graph, keeps: str) -> Evidence:
    return Checker(BLOCKS).check(planted(lambda g: g, keeps), graph, after)  # type: ignore[arg-type]


def test_untouched_blocks_are_skipped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = model()
    ran: list[str] = []
    real: Callable[..., Any] = Trace._run

    def counted(self: Trace, graph: Graph, block: Any, *rest: Any) -> Any:
        ran.append(block.name)
        return real(self, graph, block, *rest)

    monkeypatch.setattr(Trace, "_run", counted)
    found = check(graph, replace(graph), "bits")
    assert found["blocks"] == found["blocks_skipped"] == len(names(graph)) + 1
    assert ran == []
    same = with_const(with_const(graph, "l1.up.weight", lambda w: w / 2), "l1.up.weight", lambda w: w * 2)
    assert check(graph, same, "bits")["blocks_skipped"] == len(names(graph))
    assert ran == ["%l1.x (model.layers.1)"] * 2  # before and after
    ran.clear()
    after = with_const(graph, "l1.up.weight", lambda w: w * 1.5)
    with pytest.raises(PassError):
        check(graph, after, "bits")
    assert ran[:2] == ["%l1.x (model.layers.1)"] * 2
    assert ran[2:4] == ["%l2.h (model.layers.2)"] * 2  # what follows, from what the changed block gave


def test_a_cut_may_change_its_meaning() -> None:
    """Half the gain of the last norm and twice its reader: the norm's value is another one, the logits are the same."""
    graph = parse(llama(3).replace("linear(%fn, %embed)", "linear(%fn, %head)").replace(
        "const %embed: f32[64, 32]", "const %embed: f32[64, 32]\n  const %head: f32[64, 32]"), seed=0)  # fmt: skip
    assert "fn" in names(graph)

    def folded(by: float) -> Graph:
        return with_const(with_const(graph, "fn.weight", lambda w: w / 2), "head", lambda w: w * np.float32(by))

    assert check(graph, folded(2.0), "bits")["max_error"] == 0.0
    assert check(graph, folded(2.0), "algebra")["max_error"] == 0.0
    with pytest.raises(PassError) as error:
        check(graph, folded(np.nextafter(np.float32(2), np.float32(3))), "bits")
    assert error.value.where == "first at %fn (model.norm)"


def test_the_next_pass_starts_from_activations_that_are_real() -> None:
    """After an approximation the blocks behind it are fed with what the new graph makes."""
    graph = model()
    after = with_const(graph, "l0.down.weight", lambda w: w * np.float32(1.1))
    checker = Checker(BLOCKS)
    checker.check(planted(lambda g: g, "budget"), graph, after)
    last = with_const(after, "l2.down.weight", lambda w: w * np.float32(1.1))
    checker.check(planted(lambda g: g, "budget"), after, last)
    assert checker._plan is not None
    calibration = checker._plan.calibration
    want = Trace(calibration.sequence)
    want.record(last)
    for name, array in calibration.real.items():
        np.testing.assert_allclose(array, want.real[name], rtol=1e-4, atol=1e-5)


def test_a_pass_that_moves_everything_is_compared_at_the_outputs() -> None:
    """No value keeps its name: one block is left, from inputs to outputs."""
    graph = model(2)
    new = {v: replace(v, name=f"renamed.{v.name}") for n in graph.nodes for v in n.results if v not in graph.outputs}
    nodes = tuple(
        replace(n, operands=tuple(new.get(v, v) for v in n.operands), results=tuple(new.get(v, v) for v in n.results))
        for n in graph.nodes
    )
    found = check(graph, replace(graph, nodes=nodes), "bits")
    assert found["blocks"] == 1 and found["max_error"] == 0.0
