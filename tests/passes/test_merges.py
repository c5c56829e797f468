"""split_head_slices, merge_qkv and merge_gate_up: golden texts, lazy weights, declines."""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.ir import OpData
from fretsaw.passes.api import apply
from fretsaw.passes.fused.merge_gate_up import merge_gate_up, separate_gates
from fretsaw.passes.fused.merge_qkv import merge_qkv, separate_projections
from fretsaw.passes.fused.split_head_slices import split_head_slices
from tests.passes.kit import equivalent, golden, read, untouched

QKV = """
graph @g(%x: f32[B, S, 6]) -> (%o) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %a.q.weight: f32[8, 6]
  const %a.k.weight: f32[4, 6]
  const %a.v.weight: f32[4, 6]
  const %a.q.bias: f32[8]
  const %g: f32[4]
  %q: f32[B, S, 8] = linear(%x, %a.q.weight, %a.q.bias)  // a.q
  %k: f32[B, S, 4] = linear(%x, %a.k.weight)  // a.k
  %v: f32[B, S, 4] = linear(%x, %a.v.weight)  // a.v
  %qh: f32[B, S, 2, 4] = reshape(%q) {shape = [B, S, 2, 4]}
  %qn: f32[B, S, 2, 4] = rms_norm(%qh, %g) {eps = 1e-06}
  %kh: f32[B, S, 1, 4] = reshape(%k) {shape = [B, S, 1, 4]}
  %vh: f32[B, S, 1, 4] = reshape(%v) {shape = [B, S, 1, 4]}
  %o: f32[B, S, 2, 4] = attention(%qn, %kh, %vh) {scale = 0.5}  // a
}
"""
QKV_AFTER = """
graph @g(%x: f32[B, S, 6]) -> (%o) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %g: f32[4]
  const %a.qkv_proj.weight: f32[16, 6] = concat((f32[8, 6] declared("a.q.weight")), (f32[4, 6] declared("a.k.weight")), (f32[4, 6] declared("a.v.weight"))) {axis = 0}
  const %a.qkv_proj.bias: f32[16] = concat((f32[8] declared("a.q.bias")), (f32[4] data([0.0, 0.0, 0.0, 0.0])), (f32[4] data([0.0, 0.0, 0.0, 0.0]))) {axis = 0}
  %q.qkv_proj: f32[B, S, 16] = linear(%x, %a.qkv_proj.weight, %a.qkv_proj.bias)  // a.q <merge_qkv>
  %q: f32[B, S, 8] = slice(%q.qkv_proj) {axis = 2, end = 8, start = 0}  // a.q <merge_qkv>
  %k: f32[B, S, 4] = slice(%q.qkv_proj) {axis = 2, end = 12, start = 8}  // a.k <merge_qkv>
  %v: f32[B, S, 4] = slice(%q.qkv_proj) {axis = 2, end = 16, start = 12}  // a.v <merge_qkv>
  %qh: f32[B, S, 2, 4] = reshape(%q) {shape = [B, S, 2, 4]}
  %qn: f32[B, S, 2, 4] = rms_norm(%qh, %g) {eps = 1e-06}
  %kh: f32[B, S, 1, 4] = reshape(%k) {shape = [B, S, 1, 4]}
  %vh: f32[B, S, 1, 4] = reshape(%v) {shape = [B, S, 1, 4]}
  %o: f32[B, S, 2, 4] = attention(%qn, %kh, %vh) {scale = 0.5}  // a
}
"""  # noqa: E501  one line per constant is the text form
GLU = """
graph @g(%x: f32[B, 6]) -> (%y) {
  dim B in [1, 64]
  const %m.gate.weight: f32[8, 6]
  const %m.up.weight: f32[8, 6]
  %u: f32[B, 8] = linear(%x, %m.up.weight)  // m.up
  %g: f32[B, 8] = linear(%x, %m.gate.weight)  // m.gate
  %a: f32[B, 8] = silu(%g)  // m
  %y: f32[B, 8] = mul(%u, %a)  // m
}
"""
GLU_AFTER = """
graph @g(%x: f32[B, 6]) -> (%y) {
  dim B in [1, 64]
  const %m.gate_up_proj.weight: f32[16, 6] = concat((f32[8, 6] declared("m.gate.weight")), (f32[8, 6] declared("m.up.weight"))) {axis = 0}
  %g.gate_up_proj: f32[B, 16] = linear(%x, %m.gate_up_proj.weight)  // m.gate <merge_gate_up>
  %u: f32[B, 8] = slice(%g.gate_up_proj) {axis = 1, end = 16, start = 8}  // m.up <merge_gate_up>
  %g: f32[B, 8] = slice(%g.gate_up_proj) {axis = 1, end = 8, start = 0}  // m.gate <merge_gate_up>
  %a: f32[B, 8] = silu(%g)  // m
  %y: f32[B, 8] = mul(%u, %a)  // m
}
"""  # noqa: E501


def test_golden_qkv() -> None:
    golden(merge_qkv, QKV, QKV_AFTER)
    equivalent(merge_qkv, QKV, 64)  # 10 x 6 terms of a product, then a norm and a softmax
    assert len(separate_projections(read(QKV))) == 1
    assert not separate_projections(apply(merge_qkv, read(QKV))[0])


def test_golden_gate_up() -> None:
    golden(merge_gate_up, GLU, GLU_AFTER)
    equivalent(merge_gate_up, GLU, 24)
    assert len(separate_gates(read(GLU))) == 1
    assert not separate_gates(apply(merge_gate_up, read(GLU))[0])


def test_what_is_merged_counts_as_reached() -> None:
    for p, text in ((merge_qkv, QKV_AFTER), (merge_gate_up, GLU_AFTER)):
        graph = read(text)
        after, declines = apply(p, graph)
        assert after is graph and declines[0].already


@pytest.mark.parametrize(
    ("old", "new", "reason", "at"),
    [
        (
            "%k: f32[B, S, 4] = linear(%x,",
            "%k: f32[B, S, 4] = linear(%z,",
            "the projections read different values",
            "k",
        ),
        ("linear(%x, %a.v.weight)", "linear(%x, %a.k.weight)", "the weight is tied; joining would copy it", "k"),
        ("%a.q.weight, %a.q.bias)", "%w, %a.q.bias)", "weight or bias is computed", "q"),
        ("attention(%qn, %kh, %vh)", "attention(%qn, %kh, %kh)", "two of the three come from one projection", "k"),
        ("attention(%qn, %kh, %vh)", "attention(%qn, %kh, %h)", "do not come from a projection", "o"),
    ],
)
def test_qkv_declines(old: str, new: str, reason: str, at: str) -> None:
    assert old in QKV
    text = QKV.replace(old, new).replace(
        "%x: f32[B, S, 6])", "%x: f32[B, S, 6], %z: f32[B, S, 6], %w: f32[8, 6], %h: f32[B, S, 1, 4])"
    )
    ((why, where),) = untouched(merge_qkv, text)
    assert reason in why and where == at


@pytest.mark.parametrize(
    ("old", "new", "reason", "at"),
    [
        ("linear(%x, %m.gate.weight)", "linear(%z, %m.gate.weight)", "the projections read different values", "g"),
        ("mul(%u, %a)", "mul(%g, %a)", "gate and up are one value", "g"),
    ],
)
def test_gate_up_declines(old: str, new: str, reason: str, at: str) -> None:
    assert old in GLU
    text = GLU.replace(old, new).replace("%x: f32[B, 6])", "%x: f32[B, 6], %z: f32[B, 6])")
    assert untouched(merge_gate_up, text) == [(reason, at)]


HEADS = """
graph @g(%x: f32[B, S, 6]) -> (%o) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %w: f32[18, 6]
  const %b: f32[18]
  %p: f32[B, S, 18] = linear(%x, %w, %b)  // qkv
  %r: f32[B, S, 2, 9] = reshape(%p) {shape = [B, S, 2, 9]}
  %q: f32[B, S, 2, 3] = slice(%r) {axis = 3, end = 3, start = 0}
  %k: f32[B, S, 2, 3] = slice(%r) {axis = 3, end = 6, start = 3}
  %v: f32[B, S, 2, 3] = slice(%r) {axis = 3, end = 9, start = 6}
  %o: f32[B, S, 2, 3] = attention(%q, %k, %v) {scale = 0.5}
}
"""


def test_split_heads() -> None:
    after, _ = apply(split_head_slices, read(HEADS))
    assert [n.op for n in after.nodes] == ["linear"] * 3 + ["reshape"] * 3 + ["attention"]
    assert all(isinstance(c.data, OpData) for c in after.consts.values()), "weights stay lazy"
    equivalent(split_head_slices, HEADS, 64)
    assert apply(split_head_slices, after)[0] is after
    merged, _ = apply(merge_qkv, after)
    assert merged.count("linear") == 1 and merged.count("slice") == merged.count("reshape") == 3


@pytest.mark.parametrize(
    ("old", "new", "reason", "at"),
    [
        (
            "axis = 3, end = 3, start = 0}",
            "axis = 3, end = 5, start = 0, step = 2}",
            "slices another axis, or with a stride",
            "r",
        ),
        ("-> (%o)", "-> (%o, %p)", "the projection has other readers", "p"),
        ("  const %b: f32[18]\n", "", "weight or bias is computed or shared", "p"),
    ],
)
def test_split_declines(old: str, new: str, reason: str, at: str) -> None:
    assert old in HEADS
    text = HEADS.replace(old, new)
    if not new:
        text = text.replace("f32[B, S, 6])", "f32[B, S, 6], %b: f32[18])", 1)
    ((why, where),) = untouched(split_head_slices, text)
    assert reason in why and where == at


@pytest.mark.parametrize(
    ("gate", "up", "whole"), [("f16", "f16", "f16"), ("f16", "f32", "f32"), ("f16", "bf16", "f32")]
)
def test_formats_of_joined_weights(gate: str, up: str, whole: str) -> None:
    """Of one format the whole has it; of different ones it keeps the numbers of all of them."""
    text = GLU.replace("gate.weight: f32[8, 6]", f"gate.weight: f32[8, 6] as {gate}")
    before = read(text.replace("up.weight: f32[8, 6]", f"up.weight: f32[8, 6]{f' as {up}' if up != 'f32' else ''}"))
    after, _ = apply(merge_gate_up, before)
    (joined,) = after.consts.values()
    assert joined.format == whole
    parts = {v.name: c.load() for v, c in before.consts.items()}
    np.testing.assert_array_equal(joined.load(), np.concatenate([parts["m.gate.weight"], parts["m.up.weight"]]))
