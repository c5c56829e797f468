"""raise_rms_norm: spellings, declines, rounding, and the tolerance's own test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fretsaw.ir import Const, Graph
from fretsaw.passes.api import apply
from fretsaw.passes.canonical.raise_rms_norm import norm_sites, raise_rms_norm
from tests.passes.kit import equivalent, error_in_eps, golden, read, untouched

BEFORE = """
graph @g(%x: f32[B, 8]) -> (%y) {
  dim B in [1, 64]
  const %w: f32[8]
  const %two: f32[] = data([2.0])
  const %eps: f32[] = data([9.999999747378752e-06])
  %sq: f32[B, 8] = pow(%x, %two)  // norm
  %m: f32[B, 1] = mean(%sq) {axis = 1, keepdims = true}  // norm
  %a: f32[B, 1] = add(%m, %eps)  // norm
  %r: f32[B, 1] = rsqrt(%a)  // norm
  %n: f32[B, 8] = mul(%x, %r)  // norm
  %y: f32[B, 8] = mul(%w, %n)  // norm
}
"""
AFTER = """
graph @g(%x: f32[B, 8]) -> (%y) {
  dim B in [1, 64]
  const %w: f32[8]
  %y: f32[B, 8] = rms_norm(%x, %w) {eps = 1e-05}  // norm <absorb_gain>
}
"""
SPELLINGS = [
    ("pow(%x, %two)", "mul(%x, %x)"),
    ("add(%m, %eps)", "add(%eps, %m)"),
    ("mul(%x, %r)", "mul(%r, %x)"),
    ("mul(%w, %n)", "mul(%n, %w)"),
    ("%r: f32[B, 1] = rsqrt(%a)", "%q: f32[B, 1] = sqrt(%a)\n  %r: f32[B, 1] = reciprocal(%q)"),
]


def test_golden() -> None:
    golden(raise_rms_norm, BEFORE, AFTER)


@pytest.mark.parametrize(("old", "new"), SPELLINGS)
def test_spellings(old: str, new: str) -> None:
    assert old in BEFORE
    text = BEFORE.replace(old, new)
    if "pow" not in text:
        text = text.replace("  const %two: f32[] = data([2.0])\n", "")
    golden(raise_rms_norm, text, AFTER)


def test_division_by_the_root() -> None:
    text = BEFORE.replace("rsqrt(%a)", "sqrt(%a)").replace("mul(%x, %r)", "div(%x, %r)")
    golden(raise_rms_norm, text, AFTER)


def test_gain_with_leading_ones_is_flattened() -> None:
    text = BEFORE.replace("%w: f32[8]", "%w: f32[1, 8]")
    after, _ = apply(raise_rms_norm, read(text))
    assert after.nodes[0]["gain"].tensor.shape == (8,)
    equivalent(raise_rms_norm, text, 32)


@pytest.mark.parametrize(
    ("old", "new", "reason", "at"),
    [
        ("rsqrt(%a)", "rsqrt(%m)", "no eps is added", "m"),
        ("add(%m, %eps)", "add(%m, %m)", "eps is not a constant scalar", "a"),
        ("= mean(%sq) {axis = 1,", "= mean(%sq) {axis = 0,", "the mean is not over the last axis", "m"),
        ("pow(%x, %two)", "mul(%x, %two)", "not of the squares", "m"),
    ],
)
def test_declines_at_the_right_node(old: str, new: str, reason: str, at: str) -> None:
    assert old in BEFORE
    text = BEFORE.replace(old, new)
    if "axis = 0" in new:
        text = text.replace("[B, 1]", "[1, 8]").replace("[B, 8]", "[8, 8]")
    found = untouched(raise_rms_norm, text)
    assert any(reason in why and where == at for why, where in found), found


def test_second_factor_is_declined() -> None:
    text = AFTER.replace("-> (%y)", "-> (%z)").replace("\n}", "\n  %z: f32[B, 8] = mul(%y, %w)\n}")
    assert untouched(raise_rms_norm, text) == [("the norm has a gain already", "y")]


def test_factor_across_rows_is_declined() -> None:
    text = BEFORE.replace("%w: f32[8]", "%w: f32[1]")
    after, declines = apply(raise_rms_norm, read(text))
    assert [n.op for n in after.nodes] == ["rms_norm", "mul"]
    assert declines[0].reason == "the factor does not lie along the last axis" and declines[0].at.out.name == "y"


def test_no_site_is_left() -> None:
    graph = read(BEFORE)
    assert len(norm_sites(graph)) == 1
    assert not norm_sites(apply(raise_rms_norm, graph)[0])


def test_equivalent() -> None:
    equivalent(raise_rms_norm, BEFORE, 32)  # 4 x width 8: every term of the mean and three roundings more


def test_the_tolerance_can_fail() -> None:
    graph = read(BEFORE)
    after, _ = apply(raise_rms_norm, graph)
    assert error_in_eps(graph, _scaled(after, 1.00001), 0) > 32


def _scaled(graph: Graph, by: float) -> Graph:
    return replace(graph, consts={v: Const.of(c.load() * np.float32(by)) for v, c in graph.consts.items()})
