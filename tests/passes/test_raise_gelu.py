"""raise_gelu: golden text, declines, rounding."""

from __future__ import annotations

import pytest

from fretsaw.passes.api import apply
from fretsaw.passes.canonical.raise_gelu import raise_gelu
from tests.passes.kit import error_in_eps, golden, read, untouched

BEFORE = """
graph @g(%x: f32[B, 8]) -> (%y) {
  dim B in [1, 64]
  const %half: f32[] = data([0.5])
  const %one: f32[] = data([1.0])
  const %three: f32[] = data([3.0])
  const %cubic: f32[] = data([0.044715])
  const %slope: f32[] = data([0.7978845608028654])
  %h: f32[B, 8] = mul(%x, %half)
  %p: f32[B, 8] = pow(%x, %three)
  %c: f32[B, 8] = mul(%cubic, %p)
  %s: f32[B, 8] = add(%x, %c)
  %i: f32[B, 8] = mul(%s, %slope)
  %t: f32[B, 8] = tanh(%i)
  %o: f32[B, 8] = add(%t, %one)
  %y: f32[B, 8] = mul(%h, %o)
}
"""
AFTER = """
graph @g(%x: f32[B, 8]) -> (%y) {
  dim B in [1, 64]
  %y: f32[B, 8] = gelu(%x) {approximate = "tanh"}  // <raise_gelu>
}
"""


def test_golden() -> None:
    golden(raise_gelu, BEFORE, AFTER)


@pytest.mark.parametrize("dtype", ["f64", "f32"])
def test_equivalent(dtype: str) -> None:
    before = read(BEFORE, dtype)
    assert error_in_eps(before, apply(raise_gelu, before)[0], 0) < 16  # one cube, one tanh, five products


@pytest.mark.parametrize(
    ("old", "new", "reason", "at"),
    [
        ("data([0.5])", "data([0.6])", "tanh + 1 is not multiplied by x / 2", "y"),
        ("data([0.044715])", "data([0.0447])", "tanh is not of sqrt(2/pi) (x + 0.044715 x^3)", "t"),
        ("data([3.0])", "data([2.0])", "tanh is not of sqrt(2/pi) (x + 0.044715 x^3)", "t"),
        ("data([0.7978845608028654])", "data([0.8])", "tanh is not of sqrt(2/pi) (x + 0.044715 x^3)", "t"),
    ],
)
def test_declines(old: str, new: str, reason: str, at: str) -> None:
    assert old in BEFORE
    assert untouched(raise_gelu, BEFORE.replace(old, new)) == [(reason, at)]
