"""fold_bias: golden text, every decline, f64 and f32, and that the bound can fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fretsaw.ir import Const
from fretsaw.passes.api import apply
from fretsaw.passes.fused.fold_bias import fold_bias
from tests.passes.kit import equivalent, error_in_eps, golden, read, untouched

BEFORE = """
graph @g(%x: f32[B, 3]) -> (%y, %o) {
  dim B in [1, 64]
  const %w: f32[4, 3]
  const %b: f32[4]
  const %v: f32[4, 3]
  const %c: f32[1, 4]
  const %d: f32[4]
  const %half: f32[] = data([0.5])
  const %three: f32[1] = data([3.0])
  %a: f32[B, 4] = linear(%x, %w, %b)  // proj
  %s: f32[B, 4] = add(%c, %a)  // add
  %y: f32[B, 4] = mul(%s, %half)  // scale
  %t: f32[B, 3] = mul(%three, %x)  // scale
  %p: f32[B, 4] = linear(%t, %v)  // other
  %e: f32[B, 4] = silu(%p)
  %f: f32[B, 4] = add(%e, %d)
  %o: f32[B, 4] = add(%b, %f)
}
"""
AFTER = """
graph @g(%x: f32[B, 3]) -> (%y, %o) {
  dim B in [1, 64]
  const %v.scaled: f32[4, 3] = mul((f32[4, 3] declared("v")), (f32[] data([3.0])))
  const %d.sum: f32[4] = add((f32[4] declared("d")), (f32[4] declared("b")))
  const %w.scaled: f32[4, 3] = mul((f32[4, 3] declared("w")), (f32[] data([0.5])))
  const %b.sum.scaled: f32[4] = mul((f32[4] add((f32[4] declared("b")), (f32[4] reshape((f32[1, 4] declared("c"))) {shape = [4]}))), (f32[] data([0.5])))
  %y: f32[B, 4] = linear(%x, %w.scaled, %b.sum.scaled)  // proj <fold_added, fold_scaled_output>
  %p: f32[B, 4] = linear(%x, %v.scaled)  // other <fold_scaled_input>
  %e: f32[B, 4] = silu(%p)
  %o: f32[B, 4] = add(%e, %d.sum)  // <join_added>
}
"""  # noqa: E501  one line per constant is the text form
BOUND = 24  # 3 terms of a product and four constants, each rounded anew, with some cancellation


def test_golden() -> None:
    golden(fold_bias, BEFORE, AFTER)


def test_equivalent() -> None:
    equivalent(fold_bias, BEFORE, BOUND)


def test_the_bound_can_fail() -> None:
    before = read(BEFORE)
    after, _ = apply(fold_bias, before)
    nudged = {v: Const.of(c.load() * (1 + 1e-5), "f32") for v, c in after.consts.items()}
    assert error_in_eps(before, replace(after, consts=nudged), 0) > BOUND


ONE = (
    "graph @g(%x: f32[B, 3]) -> (%y) {\n dim B in [1, 8]\n const %w: f32[4, 3]\n const %b: f32[4]\n const %c: f32[4]\n"
)
ONE += " const %h: f32[] = data([0.5])\n"


@pytest.mark.parametrize(
    ("lines", "reason", "at"),
    [
        (["%a: f32[B, 4] = linear(%x, %w, %b)", "%y: f32[B, 4] = add(%a, %c)", "%z: f32[B, 4] = neg(%a)"],
         "the projection is read elsewhere too", "a"),
        (["%a: f32[B, 4] = linear(%x, %w)", "%y: f32[B, 4] = add(%a, %h)"],
         "the constant f32[] does not lie along the last axis of f32[B, 4]", "y"),
        (["%k: f32[4] = linear(%i, %w)", "%a: f32[B, 4] = linear(%x, %w, %k)", "%y: f32[B, 4] = add(%a, %c)"],
         "the bias is computed", "a"),
        (["%a: f32[B, 4] = linear(%x, %w)", "%y: f32[B, 4] = mul(%a, %h)", "%z: f32[B, 4] = neg(%a)"],
         "the projection is read elsewhere too", "a"),
        (["%a: f32[B, 4] = linear(%x, %w)", "%y: f32[2, B, 4] = mul(%a, %wide)"],
         "the product is wider than the projection", "y"),
        (["%k: f32[4] = neg(%i4)", "%a: f32[B, 4] = linear(%x, %w, %k)", "%y: f32[B, 4] = mul(%a, %h)"],
         "weight or bias is computed", "a"),
        (["%a: f32[B, 4] = linear(%x, %w)", "%y: f32[B, 4] = mul(%a, %h)", "%z: f32[B, 4] = linear(%x, %w)"],
         "weight or bias is tied; folding would fork it", "a"),
        (["%a: f32[B, 3] = mul(%x, %h)", "%y: f32[B, 4] = linear(%a, %w)", "%z: f32[B, 3] = neg(%a)"],
         "the scaled value is read elsewhere too", "a"),
        (["%a: f32[B, 3] = mul(%x, %h)", "%y: f32[B, 4] = linear(%a, %w)", "%z: f32[B, 4] = linear(%x, %w)"],
         "weight or bias is tied; folding would fork it", "y"),
        (["%a: f32[B, 4] = add(%x4, %b)", "%y: f32[B, 4] = add(%a, %c)", "%z: f32[B, 4] = neg(%a)"],
         "the first sum is read elsewhere too", "a"),
        (["%a: f32[B, 4] = add(%x4, %b)", "%y: f32[B, 4] = add(%a, %h)"],
         "the constants f32[4] and f32[] have different shapes", "y"),
    ],
)  # fmt: skip
def test_declines(lines: list[str], reason: str, at: str) -> None:
    text = ONE + " const %wide: f32[2, 1, 1] = data([0.5, 0.5])\n " + "\n ".join(lines) + "\n}"
    text = text.replace("(%x: f32[B, 3])", "(%x: f32[B, 3], %x4: f32[B, 4], %i: f32[3], %i4: f32[4])")
    if "%z" in text:
        text = text.replace("-> (%y)", "-> (%y, %z)")
    assert untouched(fold_bias, text) == [(reason, at)]


@pytest.mark.parametrize(
    "lines",
    [
        "%a: f32[B, 4] = linear(%x, %w)\n %y: f32[B, 4] = mul(%a, %h)",
        "%s: f32[B, 3] = mul(%x, %h)\n %y: f32[B, 4] = linear(%s, %w)",
    ],
)
def test_narrow_weights_are_not_multiplied(lines: str) -> None:
    """They would need the dtype's bytes; a bias that is added leaves them as they are."""
    narrow = ONE.replace("%w: f32[4, 3]", "%w: f32[4, 3] as bf16")
    ((why, _),) = untouched(fold_bias, f"{narrow} {lines}\n}}")
    assert why == "the weight is kept as bf16, which does not hold products; it would take f32"
    added = f"{narrow} %a: f32[B, 4] = linear(%x, %w)\n %y: f32[B, 4] = add(%a, %c)\n}}"
    after, _ = apply(fold_bias, read(added))
    assert [n.op for n in after.nodes] == ["linear"] and {c.format for c in after.consts.values()} == {"bf16", "f32"}
