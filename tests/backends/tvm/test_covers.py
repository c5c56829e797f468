"""The lowering table of the cpu backend: every op that it lowers stands in a graph that is planned here."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from fretsaw.backends.lowering import Lowering, Refusal
from fretsaw.backends.program.covers import COVERS, Cover
from fretsaw.backends.program.expr import BINARY, UNARY
from fretsaw.backends.program.plan import plan
from fretsaw.backends.program.specs.select import OPS
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.ir import Graph, parse
from fretsaw.ir.phases import selectors
from fretsaw.passes.pipeline import run_pipeline
from tests.backends.tvm.test_moe_plan import mixture
from tests.backends.tvm.test_select_learned import METHODS as LEARNED
from tests.backends.tvm.test_select_programs import METHODS
from tests.backends.tvm.test_sparse_attention import rewritten
from tests.passes.llama_text import llama
from tests.passes.sparse.layers import SIZE, layer_graph, layer_text, sparse

ELEMENTWISE = sorted((UNARY | BINARY) & set(COVERS)) + ["clamp"]
ENCODER = """
graph @encoder(%q: f32[T, 2, 8], %k: f32[T, 2, 8], %x: f32[T, 6], %cu: i32[B + 1]) -> (%o, %y) {
  phase packed
  dim T in [1, 64]
  dim B in [1, 8]
  const %gain: f32[6]
  const %bias: f32[6]
  %o: f32[T, 2, 8] = segment_attention(%q, %k, %k, %cu) {causal = false, scale = 0.5}
  %n: f32[T, 6] = layer_norm(%x, %gain, %bias) {eps = 1e-05}
  %p: f32[B, 6] = segment_pool(%n, %cu) {kind = "mean"}
  %y: f32[B, 6] = l2_norm(%p)
}"""


def elementwise(op: str) -> Graph:
    operands = "%x, %x" if op in BINARY else "%x"
    attrs = " {max = 7.0}" if op == "clamp" else ""
    return parse(
        f"graph @g(%x: f32[T, 8]) -> (%y) {{\n  phase packed\n  dim T in [1, 64]\n"
        f"  %y: f32[T, 8] = {op}({operands}){attrs}\n}}"
    )


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> list[Graph]:
    """Packed graphs with every op of the table that has a lowering."""
    layer = layer_graph(1)
    shapes = {"q": (4, SIZE, SIZE), "k": (2, 3 * SIZE, SIZE)}
    weights = {
        f"layers.0.self_attn.attn_gate.mask_linear_{n}.weight": np.ones(s, np.float32) for n, s in shapes.items()
    }
    gate = tmp_path_factory.mktemp("gate") / "gate.safetensors"
    save_file(weights, gate)
    own: dict[str, dict[str, object]] = {"seer_attention": {"gate": str(gate)}}
    learned = [
        sparse(layer, method=name, dense_until=0, **settings, **own.get(name, {})) for name, settings in LEARNED.items()
    ]
    texts = [parse(ENCODER, seed=0), run_pipeline(parse(llama(1), seed=0)).graph, mixture(), layer]
    kept = layer_text(1).replace("  %o0", "  keep_window(%kv) {layer = 0, sinks = 4, window = 64, page = 64}\n  %o0", 1)
    texts.append(parse(kept, seed=0))
    return [*texts, *map(elementwise, ELEMENTWISE), *(rewritten(layer, method) for method in METHODS), *learned]


def test_every_lowering_is_planned_somewhere(graphs: list[Graph]) -> None:
    planned: set[str] = set()
    for graph in graphs:
        assert plan(graph, TvmOptions()).launches
        planned |= {node.op for node in graph.nodes}
    assert {op for op, answer in COVERS.items() if isinstance(answer, Lowering)} - planned == set()


def test_every_lowering_names_a_function() -> None:
    covers = [answer for answer in COVERS.values() if isinstance(answer, Cover)]
    assert all(callable(cover.load()) for cover in covers) and all(cover.to for cover in covers)


def test_every_refusal_has_a_reason() -> None:
    assert all(len(answer.reason.split()) > 3 for answer in COVERS.values() if isinstance(answer, Refusal))


def test_every_selector_has_a_kernel() -> None:
    assert set(OPS) == set(selectors())
