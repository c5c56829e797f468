"""raise_layer_norm: golden text, declines, rounding. The rms part is raised first, as in the pipeline."""

from __future__ import annotations

import pytest

from fretsaw.passes.canonical.raise_layer_norm import raise_layer_norm
from tests.passes.kit import equivalent, golden, untouched

BEFORE = """
graph @g(%x: f32[B, 8]) -> (%y) {
  dim B in [1, 64]
  const %w: f32[8]
  const %b: f32[8]
  %m: f32[B, 1] = mean(%x) {axis = 1, keepdims = true}  // norm
  %c: f32[B, 8] = sub(%x, %m)  // norm
  %n: f32[B, 8] = rms_norm(%c, %w) {eps = 1e-05}  // norm
  %y: f32[B, 8] = add(%b, %n)  // norm
}
"""
AFTER = """
graph @g(%x: f32[B, 8]) -> (%y) {
  dim B in [1, 64]
  const %w: f32[8]
  const %b: f32[8]
  %y: f32[B, 8] = layer_norm(%x, %w, %b) {eps = 1e-05}  // norm <absorb_bias>
}
"""


def test_golden() -> None:
    golden(raise_layer_norm, BEFORE, AFTER)


def test_equivalent() -> None:
    equivalent(raise_layer_norm, BEFORE, 64)  # 8 x width 8


def test_mean_over_another_axis_is_declined() -> None:
    text = BEFORE.replace("axis = 1", "axis = 0").replace("[B, 1]", "[1, 8]").replace("[B, 8]", "[4, 8]")
    assert untouched(raise_layer_norm, text) == [("the mean is not over the last axis", "m")]


@pytest.mark.parametrize(
    ("old", "new", "reason", "at"),
    [
        ("layer_norm(%x, %w)", "layer_norm(%x)", "the norm has no gain, or has a bias already", "n"),
        ("layer_norm(%x, %w)", "layer_norm(%x, %w, %w)", "the norm has no gain, or has a bias already", "n"),
        ("%b: f32[8]", "%b: f32[1]", "the summand does not lie along the last axis", "y"),
    ],
)
def test_declines(old: str, new: str, reason: str, at: str) -> None:
    text = AFTER.replace("%y: f32[B, 8] = layer_norm(%x, %w, %b)", "%n: f32[B, 8] = layer_norm(%x, %w)")
    text = text.replace("\n}", "\n  %y: f32[B, 8] = add(%n, %b)\n}").replace(old, new)
    assert untouched(raise_layer_norm, text) == [(reason, at)]
