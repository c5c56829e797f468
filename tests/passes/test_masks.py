"""Masks: what is recognised, checked against masks computed element by element; what is refused, and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.ir import Const, Graph, parse, run, sym
from fretsaw.passes.api import Decline
from fretsaw.passes.canonical.masks import Hiding, Mask, find_mask
from tests.passes.kit import read

SHAPE = (sym("B"), 1, sym("S"), sym("S"))
HEAD = """
graph @g(%positions: i64[B, S], %flags: bool[B, S], %n: i64[B, 1], %f: f32[B, 1, S, S]) -> (%m) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %w: i64[] = data([3])
  const %two: i64[] = data([2])
  const %one: i64[] = data([1])
  const %yes: bool[] = data([true])
  const %low: f32[] = data([-1e30])
  const %weak: f32[] = data([-5.0])
  const %zero: f32[] = data([0.0])
  const %inf: f32[] = data([-inf])
  %i: i64[S] = iota() {size = S}
  %q: i64[1, 1, S, 1] = reshape(%i) {shape = [1, 1, S, 1]}
  %k: i64[1, 1, 1, S] = reshape(%i) {shape = [1, 1, 1, S]}
  %qn: i64[1, 1, S, 1] = sub(%q, %w)
  %causal: bool[1, 1, S, S] = le(%k, %q)
  %near: bool[1, 1, S, S] = gt(%k, %qn)
  %pad: bool[B, 1, 1, S] = reshape(%flags) {shape = [B, 1, 1, S]}
  %len: i64[B, 1, 1, 1] = reshape(%n) {shape = [B, 1, 1, 1]}
  %early: bool[B, 1, 1, S] = lt(%k, %len)
  %earlyq: bool[B, 1, S, 1] = lt(%q, %len)
  %pq: i64[B, 1, S, 1] = reshape(%positions) {shape = [B, 1, S, 1]}
  %pk: i64[B, 1, 1, S] = reshape(%positions) {shape = [B, 1, 1, S]}
  %gap: i64[1, 1, S, S] = sub(%q, %k)
"""


def graph_of(lines: str) -> Graph:
    return read(HEAD + lines + "\n}")


def masked(lines: str) -> Mask | Decline:
    graph = graph_of(lines)
    return find_mask(graph, [Hiding(graph.outputs[0], graph.nodes[0])], SHAPE)


CASES: dict[str, tuple[str, Mask, str]] = {
    "causal": ("%m: bool[1, 1, S, S] = le(%k, %q)", Mask(0), "causal"),
    "causal by ge": ("%m: bool[1, 1, S, S] = ge(%q, %k)", Mask(0), "causal"),
    "causal by not gt": (
        "%g: bool[1, 1, S, S] = gt(%k, %q)\n %m: bool[1, 1, S, S] = logical_not(%g)", Mask(0), "causal"),
    "causal by positions": ("%m: bool[B, 1, S, S] = le(%pk, %pq)", Mask(0), "causal"),
    "causal by a gap": ("%m: bool[1, 1, S, S] = gt(%gap, %minus)", Mask(0), "causal"),
    "causal of rank two": (
        "%r: i64[S, 1] = reshape(%i) {shape = [S, 1]}\n %m: bool[S, S] = le(%i, %r)", Mask(0), "causal"),
    "causal transposed": (
        "%g: bool[1, 1, S, S] = ge(%k, %q)\n %m: bool[1, 1, S, S] = transpose(%g) {perm = [0, 1, 3, 2]}",
        Mask(0), "causal"),
    "window": ("%m: bool[1, 1, S, S] = mul(%causal, %near)", Mask(0, 2), "causal, window 3"),
    "two windows": (
        "%b: bool[1, 1, S, S] = mul(%causal, %near)\n %g: bool[1, 1, S, S] = le(%gap, %one)\n"
        " %m: bool[1, 1, S, S] = mul(%b, %g)", Mask(0, 1), "causal, window 2"),
    "band": (
        "%a: i64[1, 1, S, S] = abs(%gap)\n %m: bool[1, 1, S, S] = le(%a, %two)", Mask(2, 2), "bidirectional, window 3"),
    "nothing hidden": ("%m: bool[1, 1, 1, S] = ge(%k, %nil)", Mask(), "bidirectional"),
    "padding": ("%m: bool[B, 1, S, S] = expand(%pad) {shape = [B, 1, S, S]}",
                Mask(padding=("flags",)), "padding by %flags"),
    "causal and padding": ("%m: bool[B, 1, S, S] = mul(%causal, %pad)",
                           Mask(0, padding=("flags",)), "causal, padding by %flags"),
    "prefix": ("%m: bool[B, 1, S, S] = add(%causal, %early)",
               Mask(0, prefix="%n[b, 0]"), "causal, prefix of %n[b, 0] tokens"),
    "prefix block": (
        "%b: bool[B, 1, S, S] = mul(%early, %earlyq)\n %m: bool[B, 1, S, S] = add(%b, %causal)",
        Mask(0, prefix="%n[b, 0]"), "causal, prefix of %n[b, 0] tokens"),
    "prefix of two": (
        "%b: bool[1, 1, 1, S] = lt(%k, %two)\n %m: bool[1, 1, S, S] = add(%b, %causal)",
        Mask(0, prefix="2"), "causal, prefix of 2 tokens"),
    "added": ("%m: f32[1, 1, S, S] = where(%causal, %zero, %low)", Mask(0), "causal"),
    "added, turned round": (
        "%g: bool[1, 1, S, S] = gt(%k, %q)\n %m: f32[1, 1, S, S] = where(%g, %inf, %zero)", Mask(0), "causal"),
    "added twice": (
        "%a: f32[1, 1, S, S] = where(%causal, %zero, %low)\n %b: f32[B, 1, 1, S] = where(%pad, %zero, %low)\n"
        " %m: f32[B, 1, S, S] = add(%a, %b)", Mask(0, padding=("flags",)), "causal, padding by %flags"),
    "one less, times low": (
        '%a: f32[1, 1, S, S] = cast(%causal) {dtype = "f32"}\n %b: f32[1, 1, S, S] = sub(%unit, %a)\n'
        " %m: f32[1, 1, S, S] = mul(%b, %low)", Mask(0), "causal"),
    "filled where zero": (
        '%a: f32[1, 1, S, S] = cast(%causal) {dtype = "f32"}\n %b: bool[1, 1, S, S] = eq(%a, %zero)\n'
        " %m: f32[1, 1, S, S] = where(%b, %low, %zero)", Mask(0), "causal"),
    "where of where": (
        "%a: f32[1, 1, S, S] = where(%causal, %zero, %low)\n %g: bool[1, 1, S, S] = logical_not(%near)\n"
        " %m: f32[1, 1, S, S] = where(%g, %low, %a)", Mask(0, 2), "causal, window 3"),
    "chosen between": ("%m: bool[1, 1, S, S] = where(%near, %causal, %no)", Mask(0, 2), "causal, window 3"),
    "same document": (
        "%first: i64[B, 1] = slice(%positions) {axis = 1, end = 1, start = 0}\n %back: i64[B, 1] = sub(%first, %one)\n"
        " %long: i64[B, S + 1] = concat(%back, %positions) {axis = 1}\n"
        " %b1: i64[B, S] = slice(%long) {axis = 1, end = S + 1, start = 1}\n"
        " %b0: i64[B, S] = slice(%long) {axis = 1, end = S, start = 0}\n"
        " %step: i64[B, S] = sub(%b1, %b0)\n %new: bool[B, S] = ne(%step, %one)\n"
        ' %n01: i64[B, S] = cast(%new) {dtype = "i64"}\n %doc: i64[B, S] = cumsum(%n01) {axis = 1}\n'
        " %dq: i64[B, 1, S, 1] = reshape(%doc) {shape = [B, 1, S, 1]}\n"
        " %dk: i64[B, 1, 1, S] = reshape(%doc) {shape = [B, 1, 1, S]}\n"
        " %same: bool[B, 1, S, S] = eq(%dq, %dk)\n %m: bool[B, 1, S, S] = mul(%same, %causal)", Mask(0), "causal"),
    "gathered": (
        "%pos: i64[1, S] = reshape(%i) {shape = [1, S]}\n %gq: i64[1, S] = gather(%pos, %pos) {axis = 1}\n"
        " %tk: i64[S] = take(%i, %i)\n %r: i64[S, 1] = reshape(%gq) {shape = [S, 1]}\n %m: bool[S, S] = le(%tk, %r)",
        Mask(0), "causal"),
}  # fmt: skip
EXTRA = (
    "  const %minus: i64[] = data([-1])\n  const %nil: i64[] = data([0])\n  const %unit: f32[] = data([1.0])\n"
    "  const %no: bool[] = data([false])\n  const %one3: i64[3] = data([0, 1, 2])\n"
)
HEAD = HEAD.replace("  %i: i64[S] = iota", EXTRA + "  %i: i64[S] = iota")


@pytest.mark.parametrize("name", CASES)
def test_recognised(name: str) -> None:
    lines, want, text = CASES[name]
    found = masked(lines)
    assert found == want and str(found) == text


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_what_is_recognised_is_what_the_graph_computes(name: str, size: int) -> None:
    """Every element of the mask, computed by the interpreter, against the meaning of the recognised mask."""
    lines, want, _ = CASES[name]
    feeds = inputs(size, seed=size)
    (got,) = run(graph_of(lines), dict(feeds))
    seen = got if got.dtype == bool else got > -1e4
    seen = np.broadcast_to(seen, (2, 1, size, size))[:, 0]
    assert np.array_equal(seen, meaning(want, feeds, size))


def inputs(size: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "positions": rng.integers(0, 5, (2, 1)) + np.arange(size), "flags": rng.integers(0, 2, (2, size)).astype(bool),
        "n": rng.integers(0, size + 1, (2, 1)), "f": np.zeros((2, 1, size, size), np.float32),
    }  # fmt: skip


def meaning(mask: Mask, feeds: dict[str, np.ndarray], size: int) -> np.ndarray:
    """[B, S, S]: does query q see key k?"""
    q, k = np.arange(size)[None, :, None], np.arange(size)[None, None, :]
    seen = np.ones((2, size, size), bool)
    seen &= True if mask.ahead is None else k - q <= mask.ahead
    seen &= True if mask.back is None else q - k <= mask.back
    if mask.prefix:
        seen |= k < (feeds["n"][:, :, None] if "%n" in mask.prefix else int(mask.prefix))
    for _ in mask.padding:
        seen &= feeds["flags"][:, None, :]
    return seen


def test_masks_that_only_together_are_known() -> None:
    """A condition hides what lies too far back, another what lies ahead, and it is true where keys are hidden."""
    graph = graph_of("%g: bool[1, 1, S, S] = gt(%k, %q)\n %m: bool[1, 1, S, S] = mul(%near, %near)")
    values = {v.name: v for v in graph.values()}
    ahead, back = Hiding(values["g"], graph.nodes[0], shows=False), Hiding(values["near"], graph.nodes[0])
    assert find_mask(graph, [ahead, back], SHAPE) == Mask(0, 2)
    assert find_mask(graph, [], SHAPE) == Mask()
    alone = find_mask(graph, [back], SHAPE)
    assert isinstance(alone, Decline) and alone.at.out.name == "near"


@pytest.mark.parametrize(
    ("lines", "reason", "at"),
    [
        ("%m: f32[1, 1, S, S] = where(%causal, %zero, %weak)",
         "the mask cannot be read: it adds 0 or -5, not 0 or at most -10000", "m"),
        ("%m: i64[1, 1, S, S] = sub(%q, %k)", "the mask cannot be read: integers are added to the logits", "m"),
        ("%m: f32[B, 1, S, S] = neg(%f)", "the mask cannot be read: %f is a table of floats from outside", "i"),
        ("%s: f32[1, 1, S, 1] = cast(%q) {dtype = \"f32\"}\n %m: bool[1, 1, S, 1] = lt(%s, %zero)",
         "the mask cannot be read: integers are turned into floats", "s"),
        ("%r: i64[B*S] = reshape(%positions) {shape = [B*S]}\n %m: bool[B*S] = lt(%r, %w)",
         "the mask cannot be read: reshape of i64[B, S] to i64[B*S] mixes axes", "r"),
        ("%c: i64[2*S] = concat(%i, %i) {axis = 0}\n %m: bool[2*S] = lt(%c, %w)",
         "the mask cannot be read: concat joins parts that do not continue each other", "c"),
        ("%c: i64[S] = cumsum(%i) {axis = 0}\n %m: bool[S] = lt(%c, %w)",
         "the mask cannot be read: cumsum of what is not the same everywhere", "c"),
        ("%c: i64[S] = mul(%i, %i)\n %m: bool[S] = lt(%c, %w)",
         "the mask cannot be read: mul has no meaning as a mask", "c"),
        ("%t: i64[3] = take(%one3, %one3)\n %m: bool[3] = lt(%t, %w)",
         "the mask cannot be read: %one3 is a table of constants", "i"),
        ("%c: bool[1, 1, S, S] = lt(%k, %q)\n %m: bool[1, 1, S, S] = mul(%c, %yes)",
         "the mask is not one that is known: -q + k + 1 <= 0 hides a query's own key", "m"),
        ("%c: i64[1, 1, S, 1] = add(%q, %one)\n %m: bool[1, 1, S, S] = le(%k, %c)",
         "the mask is not one that is known: a query sees all keys back and 1 ahead", "m"),
        ("%m: bool[1, 1, S, S] = gt(%k, %qn)",
         "the mask is not one that is known: a query sees 2 keys back and all ahead", "m"),
        ("%m: bool[1, 1, S, S] = le(%q, %k)",
         "the mask is not one that is known: a query sees 0 keys back and all ahead", "m"),
        ("%m: bool[B, 1, S, S] = le(%k, %pq)",
         "the mask is not one that is known: -%positions.start[b] + -q + k <= 0", "m"),
        ("%m: bool[1, 1, 1, S] = lt(%k, %nil)", "the mask is not one that is known: no query sees any key", "m"),
        ("%m: bool[B, 1, 1, S] = logical_not(%pad)",
         "the mask is not one that is known: not %flags[b, k] is no flag of keys", "m"),
        ("%m: bool[B, 1, S, 1] = reshape(%flags) {shape = [B, 1, S, 1]}",
         "the mask is not one that is known: %flags[b, q] is no flag of keys", "m"),
        ("%cq: i64[1, 1, S, 1] = div(%q, %w)\n %ck: i64[1, 1, 1, S] = div(%k, %w)\n"
         " %m: bool[1, 1, S, S] = eq(%cq, %ck)",
         "the mask is not one that is known: %div 3[q] + -%div 3[k] <= 0", "m"),
        ("%m: bool[B, 1, S, S] = add(%causal, %pad)",
         "the mask is not one that is known: (-q + k <= 0 or %flags[b, k])", "m"),
    ],
)  # fmt: skip
def test_refused(lines: str, reason: str, at: str) -> None:
    text = HEAD
    graph = read(text + lines + "\n}")
    found = find_mask(graph, [Hiding(graph.outputs[0], graph.nodes[0])], SHAPE)
    assert isinstance(found, Decline)
    assert (found.reason, found.at.out.name) == (reason, at)


def table(values: np.ndarray) -> Mask | Decline:
    """What a constant table [N, N], cut to [S, S], is as a mask."""
    graph = read(
        f"graph @g(%x: f32[B, S]) -> (%m) {{\n dim B in [1, 8]\n dim S in [1, 8]\n const %t: {kind(values)}[1, 8, 8]\n"
        f" %r: {kind(values)}[1, S, 8] = slice(%t) {{axis = 1, end = S, start = 0}}\n"
        f" %m: {kind(values)}[1, S, S] = slice(%r) {{axis = 2, end = S, start = 0}}\n}}"
    )
    consts = {v: Const.of(values[None]) for v in graph.consts}
    graph = replace(graph, consts=consts)
    return find_mask(graph, [Hiding(graph.outputs[0], graph.nodes[0])], SHAPE)


def kind(values: np.ndarray) -> str:
    return "bool" if values.dtype == bool else "f32"


def test_tables() -> None:
    """Masks that a model keeps as constants: GPT-2 its triangle, others a band."""
    gap = np.arange(8)[None] - np.arange(8)[:, None]
    low = np.float32(-1e30)
    assert table(gap <= 0) == Mask(0)
    assert table((gap <= 0) & (gap > -3)) == Mask(0, 2)
    assert table(abs(gap) < 3) == Mask(2, 2)
    assert table(gap < 8) == Mask()
    assert table(np.where(gap <= 0, np.float32(0), low)) == Mask(0)
    for odd in (gap >= 0, (gap <= 0) & (gap != -2), gap > 0, np.where(gap <= 0, np.float32(0), np.float32(-1))):
        assert isinstance(table(odd), Decline)
    mixed = np.where(gap <= 0, np.float32(0), low)
    mixed[0, 7] = -2e30
    found = table(mixed)
    assert isinstance(found, Decline) and found.reason == "the mask cannot be read: %t is a table of constants"


COMPARE = {"le": np.less_equal, "lt": np.less, "ge": np.greater_equal, "gt": np.greater}


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.tuples(st.sampled_from([*COMPARE]), st.booleans(), st.integers(-3, 3)), min_size=1, max_size=3),
    joins=st.lists(st.sampled_from(["mul", "add"]), min_size=2, max_size=2), size=st.integers(1, 6),
)  # fmt: skip
def test_a_random_mask_is_read_exactly_or_refused(
    parts: list[tuple[str, bool, int]], joins: list[str], size: int
) -> None:
    """Comparisons of q and k with offsets, joined by and and or: what is recognised agrees with every element."""
    lines, last = [], ""
    for i, (_, _, offset) in enumerate(parts):
        lines.append(f"const %c{i}: i64[] = data([{offset}])")
    for i, (op, swapped, _) in enumerate(parts):
        a, b = ("k", "q") if swapped else ("q", "k")
        lines += [f"%o{i}: i64[1, 1, {'S, 1' if b == 'q' else '1, S'}] = add(%{b}, %c{i})"]
        lines += [f"%p{i}: bool[1, 1, S, S] = {op}(%{a}, %o{i})"]
        if last:
            lines.append(f"%j{i}: bool[1, 1, S, S] = {joins[i - 1]}(%{last}, %p{i})")
        last = f"j{i}" if last else f"p{i}"
    consts = [line for line in lines if line.startswith("const")]
    nodes = [line for line in lines if not line.startswith("const")]
    head = HEAD.replace("-> (%m)", f"-> (%{last})")
    text = head.replace("  %i: i64[S] = iota", "  " + "\n  ".join(consts) + "\n  %i: i64[S] = iota", 1)
    graph = parse((text + "\n ".join(nodes) + "\n}").strip(), seed=0)
    found = find_mask(graph, [Hiding(graph.outputs[0], graph.nodes[0])], SHAPE)
    if isinstance(found, Mask):
        feeds = inputs(size, seed=0)
        (got,) = run(graph, dict(feeds))
        assert np.array_equal(np.broadcast_to(got, (2, 1, size, size))[:, 0], meaning(found, feeds, size))
