"""store_weights: golden text, one site per weight, classes by what the format holds, no weight rounded twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fretsaw.ir import Const, Graph, OpData, parse
from fretsaw.ir.errors import UsageError
from fretsaw.ir.formats import FORMATS
from fretsaw.passes.api import Outcome, Stored, apply
from fretsaw.passes.storage.store_weights import store_weights
from tests.passes.kit import golden, read

BEFORE = """
graph @g(%ids: i32[T], %x: f32[4, 8]) -> (%y) {
  phase packed
  dim T in [1, 64]
  const %table: f32[16, 8]
  const %gain: f32[8]
  const %bias: f32[4]
  const %w: f32[4, 8]
  %e: f32[T, 8] = embedding(%ids, %table)  // embed
  %n: f32[T, 8] = rms_norm(%e, %gain) {eps = 1e-05}  // norm
  %h: f32[T, 4] = linear(%n, %w, %bias)  // head
  %t: f32[T, 16] = linear(%n, %table)  // tied
  %c: f32[T, 4] = linear(%n, %x)  // computed
  %y: f32[T, 24] = concat(%h, %t, %c) {axis = 1}
}
"""
AFTER = BEFORE.replace("%table: f32[16, 8]", "%table: f32[16, 8] as f16").replace(
    "%w: f32[4, 8]", "%w: f32[4, 8] as f16"
)
F16 = store_weights.configured({"format": "f16"})


def outcome(graph: Graph, name: str) -> Outcome:
    return store_weights.configured({"format": name}).run(graph)


def test_golden() -> None:
    """Matrices that ops read as weights; vectors stay, a tied one is one site, a computed one is declined."""
    golden(F16, BEFORE, AFTER)
    done = outcome(read(BEFORE), "f16")
    assert done.stored == (Stored("table", "f32", "f16", 512, 256), Stored("w", "f32", "f16", 128, 64))
    assert [n.loc.module for n in done.hits] == ["embed", "head"]
    assert [d.reason for d in done.declines] == ["the weight %x is computed"]
    assert apply(F16, read(AFTER))[0] == read(AFTER)


def test_the_class_is_what_the_format_holds() -> None:
    graph = read(BEFORE)
    assert outcome(graph, "f16").keeps == "budget"
    coarse, _ = apply(store_weights, graph)
    rounded = {v: Const.of(c.load()) for v, c in coarse.consts.items()}  # numbers of bf16, in arrays of f32
    exact = outcome(replace(graph, consts=rounded), "bf16")
    assert exact.keeps == "bits" and len(exact.stored) == 2


def test_what_was_rounded_stays_rounded() -> None:
    """Widening again keeps the numbers, bit for bit: the precision that is gone does not come back."""
    narrow, _ = apply(F16, read(BEFORE))
    wide = outcome(narrow, "f32")
    assert wide.keeps == "bits"
    for value, const in wide.graph.consts.items():
        assert np.array_equal(const.load(), narrow.consts[value].load()) and const.format == "f32"
    (w,) = [c for v, c in wide.graph.consts.items() if v.name == "w"]
    assert isinstance(w.data, OpData)
    first = next(c for v, c in read(BEFORE).consts.items() if v.name == "w")
    np.testing.assert_array_equal(w.load(), FORMATS["f16"].rounded(first.load()))


def test_weights_without_data_may_be_rounded() -> None:
    """Text alone does not say what the numbers are, so nothing is promised of them."""
    graph = parse(BEFORE)
    assert outcome(graph, "f16").keeps == "budget"


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(UsageError, match="format is one of f64, f32, f16, bf16, int8, not i8"):
        store_weights.configured({"format": "i8"})
