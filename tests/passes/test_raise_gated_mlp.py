"""raise_gated_mlp: spellings of SiLU and GELU, declines, rounding; what comes out is what merge_gate_up takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fretsaw.passes.api import apply
from fretsaw.passes.canonical.raise_gated_mlp import own_sigmoids, raise_gated_mlp
from fretsaw.passes.fused.merge_gate_up import merge_gate_up
from tests.passes.kit import equivalent, error_in_eps, golden, read, untouched

HEAD = """
graph @g(%x: f32[B, 6]) -> (%y) {
  dim B in [1, 64]
  const %wg: f32[8, 6]
  const %wu: f32[8, 6]
  const %half: f32[] = data([0.5])
  const %one: f32[] = data([1.0])
  const %root: f32[] = data([1.4142135])
  const %inverse: f32[] = data([0.70710677])
  %g: f32[B, 8] = linear(%x, %wg)  // mlp.gate
  %u: f32[B, 8] = linear(%x, %wu)  // mlp.up
"""
SILU = (
    HEAD
    + """  %s: f32[B, 8] = sigmoid(%g)  // mlp
  %a: f32[B, 8] = mul(%g, %s)  // mlp
  %y: f32[B, 8] = mul(%a, %u)  // mlp
}
"""
)
SILU_AFTER = """
graph @g(%x: f32[B, 6]) -> (%y) {
  dim B in [1, 64]
  const %wg: f32[8, 6]
  const %wu: f32[8, 6]
  %g: f32[B, 8] = linear(%x, %wg)  // mlp.gate
  %u: f32[B, 8] = linear(%x, %wu)  // mlp.up
  %a: f32[B, 8] = silu(%g)  // mlp <raise_gated_mlp>
  %y: f32[B, 8] = mul(%a, %u)  // mlp
}
"""
GELU = (
    HEAD
    + """  %d: f32[B, 8] = div(%g, %root)  // mlp
  %e: f32[B, 8] = erf(%d)  // mlp
  %e1: f32[B, 8] = add(%e, %one)  // mlp
  %h: f32[B, 8] = mul(%g, %half)  // mlp
  %a: f32[B, 8] = mul(%h, %e1)  // mlp
  %y: f32[B, 8] = mul(%a, %u)  // mlp
}
"""
)
BOUND = 32  # sigmoid or erf and four products, on sums of six terms


def test_golden() -> None:
    golden(raise_gated_mlp, SILU, SILU_AFTER)
    assert [n.out.name for n in own_sigmoids(read(SILU))] == ["s"] and not own_sigmoids(read(SILU_AFTER))


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (SILU, "mul(%g, %s)", "mul(%s, %g)"),
        (SILU, "mul(%g, %s)  // mlp\n  %y: f32[B, 8] = mul(%a, %u)", "mul(%g, %u)\n  %y: f32[B, 8] = mul(%s, %a)"),
        (SILU, "mul(%g, %s)  // mlp\n  %y: f32[B, 8] = mul(%a, %u)", "mul(%u, %s)\n  %y: f32[B, 8] = mul(%g, %a)"),
        (SILU, "mul(%a, %u)", "mul(%u, %a)"),
    ],
)
def test_spellings_of_silu(text: str, old: str, new: str) -> None:
    assert old in text
    text = text.replace(old, new)
    after, _ = apply(raise_gated_mlp, read(text))
    assert sorted(n.op for n in after.nodes) == ["linear", "linear", "mul", "silu"] and not own_sigmoids(after)
    assert apply(merge_gate_up, after)[0].count("linear") == 1
    equivalent(raise_gated_mlp, text, BOUND)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("div(%g, %root)", "mul(%g, %inverse)"),
        ("add(%e, %one)", "add(%one, %e)"),
        ("mul(%h, %e1)", "mul(%e1, %h)"),
        ("mul(%g, %half)  // mlp\n  %a: f32[B, 8] = mul(%h, %e1)", "mul(%g, %e1)\n  %a: f32[B, 8] = mul(%half, %h)"),
    ],
)
def test_spellings_of_gelu(old: str, new: str) -> None:
    assert old in GELU
    before = read(GELU.replace(old, new))
    after, _ = apply(raise_gated_mlp, before)
    assert sorted(n.op for n in after.nodes) == ["gelu", "linear", "linear", "mul"]
    assert error_in_eps(before, after, 0) <= BOUND  # in f64 the root of two, held in 32 bits, would show


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (SILU, "sigmoid(%g)", "sigmoid(%u)\n  %z: f32[B, 8] = neg(%g)"),
        (SILU, "sigmoid(%g)", "tanh(%g)"),
        (GELU, "div(%g, %root)", "div(%g, %half)"),
        (GELU, "mul(%g, %half)", "mul(%g, %root)"),
    ],
)
def test_near_misses_stay(text: str, old: str, new: str) -> None:
    changed = text.replace(old, new)
    changed = changed.replace("mul(%a, %u)", "mul(%a, %g2)").replace("  %s:", "  %g2: f32[B, 8] = neg(%g)\n  %s:")
    changed = changed.replace("%g2)", "%u)") if "%g2:" not in changed else changed
    changed = changed.replace("sigmoid(%u)", "sigmoid(%x8)").replace("%x: f32[B, 6])", "%x: f32[B, 6], %x8: f32[B, 8])")
    assert untouched(raise_gated_mlp, changed) == []


def test_declines() -> None:
    shared = SILU.replace(
        "mul(%g, %s)  // mlp\n  %y: f32[B, 8] = mul(%a, %u)", "mul(%g, %u)\n  %y: f32[B, 8] = mul(%s, %a)"
    )
    shared = shared.replace("-> (%y)", "-> (%y, %a)")
    assert untouched(raise_gated_mlp, shared) == [("the inner product is read elsewhere too", "a")]
    wide = GELU.replace("const %half: f32[] = data([0.5])", "const %half: f32[2, 1, 1] = data([0.5, 0.5])")
    for name in ("h", "a", "y"):
        wide = wide.replace(f"%{name}: f32[B, 8]", f"%{name}: f32[2, B, 8]")
    assert untouched(raise_gated_mlp, wide) == [("a constant factor widens the product", "a")]


def test_the_bound_can_fail() -> None:
    """tanh's GELU for the exact one, or up activated for gate: both are seen."""
    before = read(GELU)
    after, _ = apply(raise_gated_mlp, before)
    tanh = tuple(replace(n, attrs=(("approximate", "tanh"),)) if n.op == "gelu" else n for n in after.nodes)
    assert error_in_eps(before, replace(after, nodes=tanh), 0) > BOUND
    swapped = read(SILU_AFTER.replace("silu(%g)", "silu(%u)").replace("mul(%a, %u)", "mul(%a, %g)"))
    assert error_in_eps(read(SILU), swapped, 0) > BOUND
