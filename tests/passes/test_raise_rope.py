"""raise_rope and widen_partial_rope: layouts, scaling, declines at the node that stands in the way."""

from __future__ import annotations

import pytest

from fretsaw.passes.api import apply
from fretsaw.passes.canonical.raise_rope import raise_rope, rope_sites
from fretsaw.passes.canonical.widen_partial_rope import widen_partial_rope
from tests.passes.kit import equivalent, golden, read, untouched

HEAD = """
graph @g(%x: f32[B, 2, S, 8], %pos: i64[B, S]) -> (%y) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %freq: f32[4] = data([1.0, 0.1, 0.01, 0.001])
  const %scale: f32[] = data([1.25])
  %p: i64[B, S, 1] = reshape(%pos) {shape = [B, S, 1]}
  %f: f32[B, S, 1] = cast(%p) {dtype = "f32"}
  %a: f32[B, S, 4] = mul(%f, %freq)
"""
HALVES = (
    HEAD
    + """  %e: f32[B, S, 8] = concat(%a, %a) {axis = 2}
  %c0: f32[B, S, 8] = cos(%e)
  %c1: f32[B, S, 8] = mul(%c0, %scale)
  %c: f32[B, 1, S, 8] = reshape(%c1) {shape = [B, 1, S, 8]}
  %s0: f32[B, S, 8] = sin(%e)
  %s1: f32[B, S, 8] = mul(%scale, %s0)
  %s: f32[B, 1, S, 8] = reshape(%s1) {shape = [B, 1, S, 8]}
  %lo: f32[B, 2, S, 4] = slice(%x) {axis = 3, end = 4, start = 0}
  %hi: f32[B, 2, S, 4] = slice(%x) {axis = 3, end = 8, start = 4}
  %n: f32[B, 2, S, 4] = neg(%hi)
  %r: f32[B, 2, S, 8] = concat(%n, %lo) {axis = 3}
  %xc: f32[B, 2, S, 8] = mul(%x, %c)
  %rs: f32[B, 2, S, 8] = mul(%r, %s)
  %y: f32[B, 2, S, 8] = add(%xc, %rs)
}
"""
)
AFTER = """
graph @g(%x: f32[B, 2, S, 8], %pos: i64[B, S]) -> (%y) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %freq: f32[4] = data([1.0, 0.10000000149011612, 0.009999999776482582, 0.0010000000474974513])
  %y.transpose: f32[B, S, 2, 8] = transpose(%x) {perm = [0, 2, 1, 3]}  // <raise_rope_halves>
  %y.rope: f32[B, S, 2, 8] = rope(%y.transpose, %pos, %freq) {scale = 1.25}  // <raise_rope_halves>
  %y: f32[B, 2, S, 8] = transpose(%y.rope) {perm = [0, 2, 1, 3]}  // <raise_rope_halves>
}
"""
SPLIT = (
    HEAD.replace("%x: f32[B, 2, S, 8]", "%x: f32[B, S, 2, 8]")
    + """  %c0: f32[B, S, 4] = cos(%a)
  %c: f32[B, S, 1, 4] = reshape(%c0) {shape = [B, S, 1, 4]}
  %s0: f32[B, S, 4] = sin(%a)
  %s: f32[B, S, 1, 4] = reshape(%s0) {shape = [B, S, 1, 4]}
  %lo: f32[B, S, 2, 4] = slice(%x) {axis = 3, end = 4, start = 0}
  %hi: f32[B, S, 2, 4] = slice(%x) {axis = 3, end = 8, start = 4}
  %ac: f32[B, S, 2, 4] = mul(%lo, %c)
  %bs: f32[B, S, 2, 4] = mul(%hi, %s)
  %one: f32[B, S, 2, 4] = sub(%ac, %bs)
  %bc: f32[B, S, 2, 4] = mul(%hi, %c)
  %as: f32[B, S, 2, 4] = mul(%lo, %s)
  %two: f32[B, S, 2, 4] = add(%bc, %as)
  %y: f32[B, S, 2, 8] = concat(%one, %two) {axis = 3}
}
"""
)


def test_golden_halves_heads_first() -> None:
    golden(raise_rope, HALVES, AFTER)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mul(%x, %c)", "mul(%c, %x)"),
        ("mul(%r, %s)", "mul(%s, %r)"),
        ("add(%xc, %rs)", "add(%rs, %xc)"),
        ("mul(%f, %freq)", "mul(%freq, %f)"),
    ],
)
def test_orders_of_operands(old: str, new: str) -> None:
    assert old in HALVES
    golden(raise_rope, HALVES.replace(old, new), AFTER)


def test_angles_by_a_product_of_matrices() -> None:
    text = HALVES.replace(
        "%p: i64[B, S, 1] = reshape(%pos) {shape = [B, S, 1]}", "%p: i64[B, 1, S] = reshape(%pos) {shape = [B, 1, S]}"
    )
    text = text.replace("%f: f32[B, S, 1]", "%f: f32[B, 1, S]").replace("%freq: f32[4]", "%freq: f32[1, 4, 1]")
    text = text.replace(
        "  %a: f32[B, S, 4] = mul(%f, %freq)",
        "  %q: f32[B, 4, S] = matmul(%freq, %f)\n  %a: f32[B, S, 4] = transpose(%q) {perm = [0, 2, 1]}",
    )
    after, _ = apply(raise_rope, read(text))
    assert [n.op for n in after.nodes] == ["transpose", "rope", "transpose"]
    equivalent(raise_rope, text, 8)


def test_split_form_token_major() -> None:
    after, _ = apply(raise_rope, read(SPLIT))
    assert [n.op for n in after.nodes] == ["rope"] and after.nodes[0].attr("scale") == 1.0


def test_even_and_odd_features_are_joined_first() -> None:
    text = SPLIT.replace("end = 4, start = 0}", "end = 7, start = 0, step = 2}").replace(
        "end = 8, start = 4}", "end = 8, start = 1, step = 2}"
    )
    after, _ = apply(raise_rope, read(text))
    assert [n.op for n in after.nodes] == ["slice", "slice", "concat", "rope"]
    equivalent(raise_rope, text, 8)


@pytest.mark.parametrize("text", [HALVES, SPLIT])
def test_equivalent(text: str) -> None:
    equivalent(raise_rope, text, 8)  # two products and a sum per element


@pytest.mark.parametrize(
    ("old", "new", "reason", "at"),
    [
        ("%c0: f32[B, S, 8] = cos(%e)", "%c0: f32[B, S, 8] = sin(%e)", "cos is a sin", "c"),
        ("mul(%scale, %s0)", "mul(%s0, %s0)", "sin: sin is multiplied by something that is not a constant", "s"),
        ("mul(%scale, %s0)", "add(%s0, %scale)", "sin: add between the rotation and its cos or sin", "s"),
        ("mul(%c0, %scale)", "mul(%c0, %one)", "cos and sin are of different angles", "y"),
        ("concat(%a, %a)", "concat(%a, %b)", "cos: the angle is not positions times a constant", "c"),
        ("mul(%x, %c)", "mul(%r, %c)", "what is turned is not what is kept straight", "xc"),
        ("i64[B, S]) ->", "f32[B, S]) ->", "cos: the angle is not positions times a constant", "c"),
    ],
)
def test_declines(old: str, new: str, reason: str, at: str) -> None:
    assert old in HALVES
    text = HALVES.replace(old, new)
    if "%one" in new:
        text = text.replace("  const %scale", "  const %one: f32[] = data([1.0])\n  const %scale")
    if "%b)" in new:
        text = text.replace("  %e: f32", "  %b: f32[B, S, 4] = neg(%a)\n  %e: f32")
    if "f32[B, S]) ->" in new:
        text = (
            text.replace("%p: i64", "%p: f32")
            .replace('  %f: f32[B, S, 1] = cast(%p) {dtype = "f32"}\n', "")
            .replace("mul(%f,", "mul(%p,")
        )
    found = untouched(raise_rope, text)
    assert any(
        reason in why.replace("cos or sin is multiplied", "sin is multiplied") and where == at for why, where in found
    ), found


def test_axes_of_one_length_are_ambiguous() -> None:
    text = (
        HALVES.replace("  dim B in [1, 64]\n  dim S in [1, 64]\n", "")
        .replace("B,", "3,")
        .replace("S,", "3,")
        .replace("S]", "3]")
    )
    assert "two axes have one length" in untouched(raise_rope, text)[0][0]


def test_sites_are_counted_at_attentions() -> None:
    text = HALVES.replace("-> (%y)", "-> (%o)").replace(
        "\n}", "\n  %t: f32[B, S, 2, 8] = transpose(%y) {perm = [0, 2, 1, 3]}\n"
        "  %z: f32[B, S, 2, 8] = transpose(%x) {perm = [0, 2, 1, 3]}\n"
        "  %o: f32[B, S, 2, 8] = attention(%t, %z, %z) {scale = 0.5}\n}")  # fmt: skip
    graph = read(text)
    assert len(rope_sites(graph)) == 1
    assert not rope_sites(apply(raise_rope, graph)[0])


PARTIAL = """
graph @g(%x: f32[B, S, 2, 16], %pos: i64[B, S]) -> (%y) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %freq: f32[2] = data([1.0, 0.5])
  %a: f32[B, S, 2, 4] = slice(%x) {axis = 3, end = 8, start = 4}
  %b: f32[B, S, 2, 3] = slice(%x) {axis = 3, end = 11, start = 8}
  %r: f32[B, S, 2, 4] = rope(%a, %pos, %freq)
  %y: f32[B, S, 2, 7] = concat(%r, %b) {axis = 3}
}
"""


def test_golden_partial() -> None:
    golden(
        widen_partial_rope,
        PARTIAL,
        """
graph @g(%x: f32[B, S, 2, 16], %pos: i64[B, S]) -> (%y) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %freq: f32[2] = data([1.0, 0.5])
  %y.slice: f32[B, S, 2, 7] = slice(%x) {axis = 3, end = 11, start = 4}  // <widen_partial_rope>
  %y: f32[B, S, 2, 7] = rope(%y.slice, %pos, %freq)  // <widen_partial_rope>
}
""",
    )
    equivalent(widen_partial_rope, PARTIAL, 0)


@pytest.mark.parametrize(
    ("old", "new", "reason", "at"),
    [
        ("end = 11, start = 8", "end = 12, start = 9", "do not lie side by side", "b"),
        ("slice(%x) {axis = 3, end = 11", "slice(%z) {axis = 3, end = 11", "not slices of one value", "y"),
        ("end = 8, start = 4}", "end = 8, start = 1, step = 2}", "a slice has a stride", "a"),
    ],
)
def test_partial_declines(old: str, new: str, reason: str, at: str) -> None:
    assert old in PARTIAL
    text = PARTIAL.replace(old, new).replace("%pos: i64[B, S])", "%pos: i64[B, S], %z: f32[B, S, 2, 16])")
    ((why, where),) = untouched(widen_partial_rope, text)
    assert reason in why and where == at
