"""Whole texts of refusals of the cpu backend: an op and an attribute that no kernel covers."""

from __future__ import annotations

from dataclasses import replace

from fretsaw.backends.lowering import check_lowerings
from fretsaw.backends.program.plan import plan
from fretsaw.backends.tvm.backend import backend
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.ir import Graph, parse
from fretsaw.ir.errors import LoweringError
from tests.errors.kit import block, message, text

LAYER = """
graph @layer(%q: f32[T, 2, 8], %k: f32[T, 2, 8], %positions: i32[T], %kv: handle<kv_cache>) -> (%y) {
  phase packed
  dim T in [1, 64]
  const %f: f32[4]
  %a: f32[T, 2, 8] = rope(%q, %positions, %f)  // layers.0.self_attn (modeling.py:7)
  %b: f32[T, 2, 8] = rope(%k, %positions, %f)  // layers.0.self_attn (modeling.py:7)
  kv_append(%kv, %b, %k) {layer = 0}  // layers.0.self_attn (modeling.py:9)
  %y: f32[T, 2, 8] = cached_attention(%kv, %a) {layer = 0, scale = 0.5, value_size = 8}  // layers.0.self_attn
}
"""


def layer(old: str = "", new: str = "") -> Graph:
    assert old in LAYER
    return parse(LAYER.strip().replace(old, new), seed=0)


def check(graph: Graph) -> None:
    check_lowerings(graph, backend.name, backend.phase, backend.lowerings())


def test_an_op_without_a_lowering() -> None:
    graph = replace(block(("= exp(", "= erf("), ("= neg(", "= erf(")), phase="packed")
    assert message(LoweringError, lambda: check(graph)) == text("""
        LoweringError: the cpu backend has no lowering for erf
          at    %s   layers.0.act
          when  lowering for cpu
            | %q: f32[2, 4] = linear(%n, %w)
            | %r: f32[2, 4] = silu(%q)
          > | %s: f32[2, 4] = erf(%r)
            |                 ^^^
            | %y: f32[2, 4] = erf(%s)
            | erf: 2 places, first %s   layers.0.act: no elementwise kernel computes it
          hint  the reference interpreter runs every op; `fretsaw backends --ops` shows which backend lowers what
    """)


def test_an_attribute_without_a_kernel() -> None:
    graph = layer("{layer = 0, scale", "{causal = false, layer = 0, scale")
    assert message(LoweringError, lambda: plan(graph, TvmOptions())) == text("""
        LoweringError: bidirectional attention over a cache has no kernel
          at    %y   layers.0.self_attn
          when  lowering for tvm
            | %b: f32[T, 2, 8] = rope(%k, %positions, %f)
            | kv_append(%kv, %b, %k) {layer = 0}
          > | %y: f32[T, 2, 8] = cached_attention(%kv, %a) {causal = false, layer = 0, scale = 0.5, value_size = 8}
            |                                               ^^^^^^^^^^^^^^
          hint  this architecture can be captured and run by the reference interpreter, not compiled yet
    """)


def test_a_layer_whose_cache_nobody_fills() -> None:
    graph = layer("cached_attention(%kv, %a) {layer = 0", "cached_attention(%kv, %a) {layer = 3")
    assert message(LoweringError, lambda: plan(graph, TvmOptions())) == text("""
        LoweringError: layer 3 reads a cache that nobody fills
          at    %y   layers.0.self_attn
          when  lowering for tvm
            | %b: f32[T, 2, 8] = rope(%k, %positions, %f)
            | kv_append(%kv, %b, %k) {layer = 0}
          > | %y: f32[T, 2, 8] = cached_attention(%kv, %a) {layer = 3, scale = 0.5, value_size = 8}
            |                                               ^^^^^^^^^
          hint  this architecture can be captured and run by the reference interpreter, not compiled yet
    """)


def test_an_op_that_a_table_forgot() -> None:
    graph = replace(block(), phase="packed")
    table = {op: answer for op, answer in backend.lowerings().items() if op != "silu"}
    assert message(LoweringError, lambda: check_lowerings(graph, "mine", "packed", table)).splitlines()[-2].strip() == (
        "| silu: 1 place, first %r   layers.0.act: the backend's table has no answer for it"
    )


def test_a_graph_of_an_earlier_phase() -> None:
    assert message(LoweringError, lambda: check(block())) == text("""
        LoweringError: the cpu backend lowers packed programs, this one is captured
          at    block
          hint  run the pass pipeline first
    """)
