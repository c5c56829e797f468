"""fold_constants, cse and dce."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fretsaw.ir import ArrayData, Const, FileData, OpData, TensorType, parse, to_text
from fretsaw.passes.api import apply
from fretsaw.passes.canonical.cse import cse
from fretsaw.passes.canonical.dce import dce
from fretsaw.passes.canonical.fold_constants import fold_constants
from tests.passes.kit import golden, untouched


def test_fold_small_constants_now() -> None:
    golden(
        fold_constants,
        """
graph @g(%x: f32[2]) -> (%y) {
  const %a: f32[2] = data([1.0, 2.0])
  %one: f32[2] = full() {shape = [2], value = 1.0}
  %b: f32[2] = add(%a, %one)
  %y: f32[2] = mul(%x, %b)
}""",
        """
graph @g(%x: f32[2]) -> (%y) {
  const %b_1: f32[2] = data([2.0, 3.0])
  %y: f32[2] = mul(%x, %b_1)
}""",
    )


def test_what_has_no_value_yet_or_at_all_stays() -> None:
    head = "graph @g(%x: f32[S]) -> (%y) {\n  dim S in [1, 8]\n  const %t: f32[2, 1] = data([1.0, 2.0])\n"
    symbolic = head + "  %c: f32[2] = full() {shape = [2], value = S}\n  %y: f32[2] = neg(%c)\n}"
    assert untouched(fold_constants, symbolic) == [("an attribute is symbolic", "c")]
    outside = head + "  const %i: i64[1] = data([2])\n  %c: f32[1, 1] = embedding(%i, %t)\n  %y: f32[1, 1] = neg(%c)\n}"
    reason = "its reference refuses these constants: index 2 is out of bounds for axis 0 with size 2"
    assert untouched(fold_constants, outside) == [(reason, "c")]


def test_weights_stay_on_disk() -> None:
    text = """
graph @g(%x: f32[2]) -> (%y) {
  const %w: f32[2] = file("weights.safetensors", 8, 8, f32[2])
  const %one: f32[] = data([1.0])
  %b: f32[2] = add(%one, %w)
  %y: f32[2] = mul(%x, %b)
}"""
    missing = FileData(Path("/nowhere/weights.safetensors"), 8, 8, "f32", (2,))
    graph = parse(text.strip(), {"w": Const(TensorType("f32", (2,)), missing)})
    after, _ = apply(fold_constants, graph)
    (const,) = after.consts.values()
    assert isinstance(const.data, OpData) and const.data.op == "add"
    assert '= add((f32[] data([1.0])), (f32[2] file("weights.safetensors", 8, 8, f32[2])))' in to_text(after)


def test_fold_declines() -> None:
    symbolic = "graph @g(%x: f32[B]) -> (%y) {\n dim B in [1, 2]\n const %c: f32[1] = data([1.0])\n"
    symbolic += " %e: f32[B] = expand(%c) {shape = [B]}\n %y: f32[B] = add(%x, %e)\n}"
    assert untouched(fold_constants, symbolic) == [("the result has a symbolic dimension", "e")]
    output = "graph @g() -> (%y) {\n const %c: f32[1] = data([1.0])\n %y: f32[1] = neg(%c)\n}"
    assert untouched(fold_constants, output) == [("a graph output stays computed", "y")]


def test_cse() -> None:
    golden(
        cse,
        """
graph @g(%x: f32[2, 2]) -> (%y, %z) {
  const %a: f32[2] = data([1.0, 2.0])
  const %b: f32[2] = data([1.0, 2.0])
  %p: f32[2, 2] = mul(%x, %a)
  %q: f32[2, 2] = mul(%x, %b)
  %r: f32[2, 2] = softmax(%p) {axis = 0}
  %s: f32[2, 2] = softmax(%q) {axis = 0}
  %t: f32[2, 2] = softmax(%q) {axis = 1}
  %y: f32[2, 2] = add(%r, %s)
  %z: f32[2, 2] = add(%r, %t)
}""",
        """
graph @g(%x: f32[2, 2]) -> (%y, %z) {
  const %a: f32[2] = data([1.0, 2.0])
  %p: f32[2, 2] = mul(%x, %a)
  %r: f32[2, 2] = softmax(%p) {axis = 0}
  %t: f32[2, 2] = softmax(%p) {axis = 1}
  %y: f32[2, 2] = add(%r, %r)
  %z: f32[2, 2] = add(%r, %t)
}""",
    )


def test_cse_keeps_outputs_and_effects() -> None:
    text = "graph @g(%x: f32[2], %kv: handle<kv_cache>, %k: f32[1, 1, 2]) -> (%y, %z) {\n phase packed\n"
    text += " %y: f32[2] = neg(%x)\n %z: f32[2] = neg(%x)\n"
    text += " kv_append(%kv, %k, %k) {layer = 0}\n kv_append(%kv, %k, %k) {layer = 0}\n}"
    assert untouched(cse, text) == []


CACHE = """
graph @g(%q: f32[T, 2, 4], %k: f32[T, 2, 4], %kv: handle<kv_cache>) -> (%y, %z) {
  phase packed
  dim T in [1, 8]
  kv_append(%kv, %k, %k) {layer = 0}
  %a: f32[T, 2, 4] = cached_attention(%kv, %q) {layer = 0, scale = 0.5, value_size = 4}
  kv_append(%kv, %k, %k) {layer = LAYER}
  %b: f32[T, 2, 4] = cached_attention(%kv, %q) {layer = 0, scale = 0.5, value_size = 4}
  %y: f32[T, 2, 4] = add(%a, %b)
  %z: f32[T, 2, 4] = neg(%b)
}"""


@pytest.mark.parametrize(("layer", "merged"), [(0, 0), (1, 1)])
def test_cse_merges_reads_of_a_cache_that_no_write_separates(layer: int, merged: int) -> None:
    graph = parse(CACHE.replace("LAYER", str(layer)))
    after, _ = apply(cse, graph)
    assert graph.count("cached_attention") - after.count("cached_attention") == merged


def test_reads_that_nobody_wants_go() -> None:
    """A write stays whoever looks at it."""
    graph = parse(CACHE.replace("LAYER", "1").replace("(%y, %z)", "(%q)"))
    after, _ = apply(dce, graph)
    assert [n.op for n in after.nodes] == ["kv_append", "kv_append"]


def test_dce_keeps_effects() -> None:
    golden(
        dce,
        """
graph @g(%x: f32[2], %kv: handle<kv_cache>, %k: f32[1, 1, 2]) -> (%y) {
  phase packed
  const %unread: f32[2]
  %dead: f32[2] = neg(%x)
  %deader: f32[2] = neg(%dead)
  kv_append(%kv, %k, %k) {layer = 0}
  %y: f32[2] = neg(%x)
}""",
        """
graph @g(%x: f32[2], %kv: handle<kv_cache>, %k: f32[1, 1, 2]) -> (%y) {
  phase packed
  kv_append(%kv, %k, %k) {layer = 0}
  %y: f32[2] = neg(%x)
}""",
    )


def test_equal_arrays_are_equal_constants() -> None:
    a, b = (Const.of(np.arange(100, dtype=np.float32)) for _ in range(2))
    assert a == b and hash(a) == hash(b) and isinstance(a.data, ArrayData)
    assert a != Const.of(np.arange(100, dtype=np.int64))
