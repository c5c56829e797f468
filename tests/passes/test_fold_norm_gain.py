"""fold_norm_gain: golden texts, declines, algebra in f64, rounding in f32, and that the bound can fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fretsaw.ir import Const, OpData
from fretsaw.passes.api import apply
from fretsaw.passes.fused.fold_norm_gain import fold_norm_gain
from tests.passes.kit import equivalent, error_in_eps, golden, read, untouched

RMS = """
graph @g(%x: f32[B, S, 8]) -> (%q, %e) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %gain: f32[8]
  const %wq: f32[4, 8]
  const %wr: f32[3, 8]
  const %wgu: f32[3, 6, 8]
  const %wd: f32[3, 8, 3]
  %n: f32[B, S, 8] = rms_norm(%x, %gain) {eps = 1e-05}  // layers.0.norm
  %q: f32[B, S, 4] = linear(%n, %wq)  // layers.0.q_proj
  %r: f32[B*S, 8] = reshape(%n) {shape = [B*S, 8]}  // layers.0.mlp
  %l: f32[B*S, 3] = linear(%r, %wr)  // layers.0.mlp.gate
  %i: i64[B*S, 2], %w: f32[B*S, 2] = router(%l) {k = 2}  // layers.0.mlp.gate
  %e: f32[B*S, 8] = experts(%r, %i, %w, %wgu, %wd)  // layers.0.mlp.experts
}
"""
RMS_AFTER = """
graph @g(%x: f32[B, S, 8]) -> (%q, %e) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %wd: f32[3, 8, 3]
  const %wq.gained: f32[4, 8] = mul((f32[4, 8] declared("wq")), (f32[8] declared("gain")))
  const %wr.gained: f32[3, 8] = mul((f32[3, 8] declared("wr")), (f32[8] declared("gain")))
  const %wgu.gained: f32[3, 6, 8] = mul((f32[3, 6, 8] declared("wgu")), (f32[8] declared("gain")))
  %n.plain: f32[B, S, 8] = rms_norm(%x) {eps = 1e-05}  // layers.0.norm <fold_norm_gain>
  %q: f32[B, S, 4] = linear(%n.plain, %wq.gained)  // layers.0.q_proj <fold_norm_gain>
  %r.plain: f32[B*S, 8] = reshape(%n.plain) {shape = [B*S, 8]}  // layers.0.mlp <fold_norm_gain>
  %l: f32[B*S, 3] = linear(%r.plain, %wr.gained)  // layers.0.mlp.gate <fold_norm_gain>
  %i: i64[B*S, 2], %w: f32[B*S, 2] = router(%l) {k = 2}  // layers.0.mlp.gate
  %e: f32[B*S, 8] = experts(%r.plain, %i, %w, %wgu.gained, %wd)  // layers.0.mlp.experts <fold_norm_gain>
}
"""
LAYER = """
graph @g(%x: f32[B, 8]) -> (%q, %k) {
  dim B in [1, 64]
  const %gain: f32[8]
  const %shift: f32[8]
  const %wq: f32[4, 8]
  const %bq: f32[4]
  const %wk: f32[2, 8]
  %n: f32[B, 8] = layer_norm(%x, %gain, %shift) {eps = 1e-05}  // norm
  %q: f32[B, 4] = linear(%n, %wq, %bq)  // q_proj
  %k: f32[B, 2] = linear(%n, %wk)  // k_proj
}
"""
LAYER_AFTER = """
graph @g(%x: f32[B, 8]) -> (%q, %k) {
  dim B in [1, 64]
  const %wq.gained: f32[4, 8] = mul((f32[4, 8] declared("wq")), (f32[8] declared("gain")))
  const %wq.shift: f32[4] = linear((f32[8] declared("shift")), (f32[4, 8] declared("wq")), (f32[4] declared("bq")))
  const %wk.gained: f32[2, 8] = mul((f32[2, 8] declared("wk")), (f32[8] declared("gain")))
  const %wk.shift: f32[2] = linear((f32[8] declared("shift")), (f32[2, 8] declared("wk")))
  %n.plain: f32[B, 8] = layer_norm(%x) {eps = 1e-05}  // norm <fold_norm_gain>
  %q: f32[B, 4] = linear(%n.plain, %wq.gained, %wq.shift)  // q_proj <fold_norm_gain>
  %k: f32[B, 2] = linear(%n.plain, %wk.gained, %wk.shift)  // k_proj <fold_norm_gain>
}
"""
BOUND = 128  # 2 x 8 terms of a product, behind it a softmax and a second product


def test_golden() -> None:
    golden(fold_norm_gain, RMS, RMS_AFTER)
    golden(fold_norm_gain, LAYER, LAYER_AFTER)


def test_equivalent_and_lazy() -> None:
    equivalent(fold_norm_gain, RMS, BOUND)
    equivalent(fold_norm_gain, LAYER, 32)
    after, _ = apply(fold_norm_gain, read(RMS))
    assert all(isinstance(c.data, OpData) for v, c in after.consts.items() if v.name.endswith("gained"))


def test_the_bound_can_fail() -> None:
    """The old weight in one projection, or a bias folded without the weight: both are seen."""
    before = read(LAYER)
    after, _ = apply(fold_norm_gain, before)
    old = {v.name: c for v, c in before.consts.items()}
    for name, const in (("wk.gained", old["wk"]), ("wq.shift", old["bq"])):
        consts = {v: const if v.name == name else c for v, c in after.consts.items()}
        assert error_in_eps(before, replace(after, consts=consts), 0) > BOUND
    nudged = {v: Const.of(c.load() * (1 + 2e-5), "f32") for v, c in after.consts.items()}
    assert error_in_eps(before, replace(after, consts=nudged), 0) > 32


@pytest.mark.parametrize(
    ("text", "old", "new", "reason", "at"),
    [
        (RMS, "-> (%q, %e)", "-> (%q, %e, %n)", "the norm is a graph output, its gain is seen", "n"),
        (RMS, "-> (%q, %e)", "-> (%q, %e, %r)", "the norm is a graph output, its gain is seen", "r"),
        (RMS, "%q: f32[B, S, 4] = linear(%n, %wq)", "%q: f32[B, S, 3] = linear(%n, %wr)",
         "the weight is tied; folding would fork it", "q"),
        (RMS, "  const %gain: f32[8]\n", "", "the gain or bias of the norm is computed", "n"),
        (RMS, "  const %wq: f32[4, 8]\n", "", "the weight is computed", "q"),
        (RMS, "-> (%q, %e) {", "-> (%q, %e, %a) {\n  %a: f32[B, S, 8] = neg(%n)",
         "its reader is neg, not a projection", "a"),
        (RMS, "rms_norm(%x, %gain)", "layer_norm(%x, %gain, %gain)",
         "the bias of the norm cannot be folded into experts", "e"),
        (LAYER, "  const %bq: f32[4]\n", "", "the bias is computed", "q"),
        (LAYER, "%wk: f32[2, 8]", "%wk: f32[2, 8] as bf16",
         "the weight is kept as bf16, which does not hold products; it would take f32", "k"),
        (LAYER, "  const %shift: f32[8]\n", "", "the gain or bias of the norm is computed", "n"),
    ],
)  # fmt: skip
def test_declines(text: str, old: str, new: str, reason: str, at: str) -> None:
    assert old in text
    changed = text.replace(old, new)
    if old.startswith("  const"):  # the constant becomes an input
        name, kind = old.strip().removeprefix("const ").split(": ")
        changed = changed.replace(") -> (", f", {name}: {kind}) -> (", 1)
    if "neg(%n)" in new:  # the new reader stands after the norm
        line = new.split("\n")[1]
        changed = changed.replace("\n" + line, "", 1).replace("// layers.0.norm\n", "// layers.0.norm\n" + line + "\n")
    assert untouched(fold_norm_gain, changed) == [(reason, at)]


def test_a_norm_without_gain_is_no_site() -> None:
    assert untouched(fold_norm_gain, LAYER_AFTER) == []
