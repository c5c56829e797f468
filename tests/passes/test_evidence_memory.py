"""The stated bound of a check's memory holds, and is smaller than the weights of a large model."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fretsaw.ir import Const, FileData, Graph, Node, TensorType, make_node, parse
from fretsaw.passes.evidence.check import Checker, make_plan
from fretsaw.passes.evidence.options import EvidenceOptions
from tests.passes.planted import planted

LAYERS, WIDTH, INNER, VOCAB = 12, 384, 1536, 512


def deep_text() -> str:
    """Gated layers on a residual stream, as IR text."""
    h, wide = f"f32[B, S, {WIDTH}]", f"f32[B, S, {INNER}]"
    lines = ["dim B in [1, 8]", "dim S in [1, 4096]", f"const %table: f32[{VOCAB}, {WIDTH}]"]
    body = [f"%x0: {h} = embedding(%input_ids, %table)"]
    for i in range(LAYERS):
        lines += [f"const %up{i}: f32[{INNER}, {WIDTH}]", f"const %down{i}: f32[{WIDTH}, {INNER}]"]
        body += [
            f"%u{i}: {wide} = linear(%x{i}, %up{i})  // layers.{i}",
            f"%a{i}: {wide} = tanh(%u{i})  // layers.{i}",
            f"%d{i}: {h} = linear(%a{i}, %down{i})  // layers.{i}",
            f"%x{i + 1}: {h} = add(%x{i}, %d{i})  // layers.{i}",
        ]
    body.append(f"%logits: f32[B, S, {VOCAB}] = linear(%x{LAYERS}, %table)")
    return "\n".join(["graph @deep(%input_ids: i64[B, S]) -> (%logits) {", *(f"  {x}" for x in lines + body), "}"])


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Weights in one file of bf16, so that reading one allocates it in f32."""
    path: Path = tmp_path_factory.mktemp("weights") / "weights.bin"
    rng = np.random.default_rng(0)
    graph, offset = parse(deep_text()), 0
    consts: dict[object, Const] = {}
    with path.open("wb") as file:
        for value in graph.consts:
            shape = tuple(d for d in value.tensor.shape if isinstance(d, int))
            weight = (rng.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32)
            raw = (weight.view(np.uint32) >> 16).astype(np.uint16).tobytes()
            file.write(raw)
            consts[value] = Const(value.tensor, FileData(path, offset, len(raw), "bf16", shape))
            offset += len(raw)
    return replace(graph, consts=consts)  # type: ignore[arg-type]


def swapped(graph: Graph) -> Graph:
    """Every residual sum with its operands exchanged, and every tanh as a quotient: all layers change, f32 rounds."""
    nodes: list[Node] = []
    one = Const.of(np.array(1.0, np.float32))
    unit = replace(graph.outputs[0], name="one", type=TensorType("f32"))
    for node in graph.nodes:
        if node.op == "tanh":
            nodes.append(make_node("tanh", node.operands, {}, [f"{node.out.name}.t"], node.loc))
            inverse = make_node("reciprocal", nodes[-1].results, {}, [f"{node.out.name}.r"], node.loc)
            nodes += [inverse, make_node("div", (unit, inverse.out), {}, [node.out.name], node.loc)]
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes), consts={**graph.consts, unit: one})


def measured(graph: Graph, after: Graph, options: EvidenceOptions, keeps: str) -> tuple[int, int]:
    """Peak bytes that Python's allocator saw during a check, and the bound that the check states."""
    checker = Checker(options)
    gc.collect()
    tracemalloc.start()
    try:
        found = checker.check(planted(lambda g: g, keeps), graph, after)  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["status"] in ("passed", "measured: no limit was given")
    assert keeps != "algebra" or float(found["max_error"]) > 0  # so that f64 ran as well
    assert checker.summary()["memory_bound_bytes"] == found["memory_bound_bytes"]
    return peak, int(found["memory_bound_bytes"])


@pytest.mark.parametrize("keeps", ["algebra", "budget"])
@pytest.mark.parametrize("mode", ["blocks", "whole"])
def test_peak_stays_under_the_bound_and_the_bound_under_the_weights(deep: Graph, mode: str, keeps: str) -> None:
    weights = sum(c.type.nbytes() for c in deep.consts.values())
    peak, bound = measured(deep, swapped(deep), EvidenceOptions(mode=mode, tokens=64), keeps)  # type: ignore[arg-type]
    assert peak <= bound < weights * 0.7
    assert bound < 4 * peak  # a bound that says something


def test_attention_holds_scores_of_one_group_of_heads() -> None:
    """At 512 tokens, 16 heads: all scores at once would take 16 MB in f32."""
    from fretsaw.ir.ops.attention import attend

    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((512, 16, 8)).astype(np.float32) for _ in range(3))
    tracemalloc.start()
    attend(q, k, v, None, np.arange(512), {"scale": 0.3})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 512 * 512 * 4 < 16 * 512 * 512 * 4


def test_large_models_take_fewer_tokens_and_go_by_blocks(monkeypatch: pytest.MonkeyPatch, deep: Graph) -> None:
    from fretsaw.passes.evidence import check

    assert make_plan(deep, EvidenceOptions(tokens=64)).mode == "whole"
    monkeypatch.setattr(check, "WHOLE_FLOPS", 10**9)  # a run over 64 tokens takes 1.9e9
    plan = make_plan(deep, EvidenceOptions(tokens=64))
    assert plan.mode == "blocks" and 30 <= plan.tokens <= 34
    monkeypatch.setattr(check, "OUTPUT_BYTES", 16 * VOCAB * 4)
    assert make_plan(deep, EvidenceOptions(tokens=64)).tokens == 16
