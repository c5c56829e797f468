"""raise_attention: golden texts, every spelling, every decline, f64 and f32, and that the bound can fail."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.ir import Graph, Node, parse, to_text
from fretsaw.passes.api import apply
from fretsaw.passes.canonical.raise_attention import raise_attention, written_out
from tests.passes.kit import equivalent, error_in_eps, golden, read, untouched

BOUND = 64  # products of 4 and of S = 3 terms, a softmax between them

HEAD = """
graph @g(%q: f32[B, 4, S, 4], %k: f32[B, 2, S, 4], %v: f32[B, 2, S, 6]) -> (%y) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %scale: f32[] = data([0.5])
  const %cap: f32[] = data([3.0])
  const %low: f32[] = data([-3.4e+38])
  const %inf: f32[] = data([-inf])
  const %zero: f32[] = data([0.0])
  const %two: i64[] = data([2])
  const %sink: f32[4]
"""
FULL = (
    HEAD
    + """
  %i: i64[S] = iota() {size = S}
  %qi: i64[S, 1] = reshape(%i) {shape = [S, 1]}
  %seen: bool[S, S] = le(%i, %qi)
  %mask: f32[S, S] = where(%seen, %zero, %low)  // model
  %k5: f32[B, 2, 1, S, 4] = reshape(%k) {shape = [B, 2, 1, S, 4]}
  %kx: f32[B, 2, 2, S, 4] = expand(%k5) {shape = [B, 2, 2, S, 4]}
  %kr: f32[B, 4, S, 4] = reshape(%kx) {shape = [B, 4, S, 4]}
  %v5: f32[B, 2, 1, S, 6] = reshape(%v) {shape = [B, 2, 1, S, 6]}
  %vx: f32[B, 2, 2, S, 6] = expand(%v5) {shape = [B, 2, 2, S, 6]}
  %vr: f32[B, 4, S, 6] = reshape(%vx) {shape = [B, 4, S, 6]}
  %kt: f32[B, 4, 4, S] = transpose(%kr) {perm = [0, 1, 3, 2]}
  %l: f32[B, 4, S, S] = matmul(%q, %kt)  // layers.0.self_attn
  %s: f32[B, 4, S, S] = mul(%l, %scale)
  %c0: f32[B, 4, S, S] = div(%s, %cap)
  %c1: f32[B, 4, S, S] = tanh(%c0)
  %c: f32[B, 4, S, S] = mul(%c1, %cap)
  %m: f32[B, 4, S, S] = add(%c, %mask)  // layers.0.self_attn
  %s4: f32[1, 4, 1, 1] = reshape(%sink) {shape = [1, 4, 1, 1]}
  %sx: f32[B, 4, S, 1] = expand(%s4) {shape = [B, 4, S, 1]}
  %j: f32[B, 4, S, S + 1] = concat(%m, %sx) {axis = 3}
  %top: f32[B, 4, S, 1] = max(%j) {axis = 3, keepdims = true}
  %jj: f32[B, 4, S, S + 1] = sub(%j, %top)
  %p: f32[B, 4, S, S + 1] = softmax(%jj) {axis = 3}  // layers.0.self_attn
  %w: f32[B, 4, S, S] = slice(%p) {axis = 3, end = S, start = 0}
  %y: f32[B, 4, S, 6] = matmul(%w, %vr)  // layers.0.self_attn
}
"""
)
FULL_AFTER = """
graph @g(%q: f32[B, 4, S, 4], %k: f32[B, 2, S, 4], %v: f32[B, 2, S, 6]) -> (%y) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %sink: f32[4]
  %y.q: f32[B, S, 4, 4] = transpose(%q) {perm = [0, 2, 1, 3]}  // layers.0.self_attn <raise_attention>
  %y.k: f32[B, S, 2, 4] = transpose(%k) {perm = [0, 2, 1, 3]}  // layers.0.self_attn <raise_attention>
  %y.v: f32[B, S, 2, 6] = transpose(%v) {perm = [0, 2, 1, 3]}  // layers.0.self_attn <raise_attention>
  %y.attention: f32[B, S, 4, 6] = attention(%y.q, %y.k, %y.v, %sink) {scale = 0.5, softcap = 3.0}  // layers.0.self_attn <raise_attention>
  %y: f32[B, 4, S, 6] = transpose(%y.attention) {perm = [0, 2, 1, 3]}  // layers.0.self_attn <raise_attention>
}
"""  # noqa: E501  one line per node is the text form
PLAIN = (
    HEAD.replace("%k: f32[B, 2, S, 4], %v: f32[B, 2, S, 6]", "%k: f32[B, 4, S, 4], %v: f32[B, 4, S, 6]")
    + """
  %i: i64[S] = iota() {size = S}
  %qi: i64[S, 1] = reshape(%i) {shape = [S, 1]}
  %seen: bool[S, S] = le(%i, %qi)
  %gap: i64[S, S] = sub(%qi, %i)
  %near: bool[S, S] = lt(%gap, %two)
  %kt: f32[B, 4, 4, S] = transpose(%k) {perm = [0, 1, 3, 2]}
  %l: f32[B, 4, S, S] = matmul(%q, %kt)  // layers.0.self_attn
  %s: f32[B, 4, S, S] = mul(%l, %scale)
  %m: f32[B, 4, S, S] = where(%seen, %s, %inf)  // layers.0.self_attn
  %p: f32[B, 4, S, S] = softmax(%m) {axis = 3}  // layers.0.self_attn
  %y: f32[B, 4, S, 6] = matmul(%p, %v)  // layers.0.self_attn
}
"""
)
MASK = "%m: f32[B, 4, S, S] = where(%seen, %s, %inf)"


def attention_of(text: str) -> Node:
    graph, _ = apply(raise_attention, read(text))
    assert not written_out(graph)
    (node,) = [n for n in graph.nodes if n.op == "attention"]
    return node


def test_golden() -> None:
    golden(raise_attention, FULL, FULL_AFTER)
    assert len(written_out(read(FULL))) == 1 and not written_out(read(FULL_AFTER))


def test_equivalent() -> None:
    equivalent(raise_attention, FULL, BOUND)
    equivalent(raise_attention, PLAIN, BOUND)


@pytest.mark.parametrize(
    ("old", "new", "attrs"),
    [
        (MASK, MASK, {"scale": 0.5}),
        ("mul(%l, %scale)", "div(%l, %cap)", {"scale": 1 / 3}),
        ("mul(%l, %scale)", "mul(%scale, %l)", {"scale": 0.5}),
        (MASK, "%b: f32[B, 4, S, S] = where(%near, %s, %low)\n  %m: f32[B, 4, S, S] = where(%seen, %b, %inf)",
         {"scale": 0.5, "window": 2}),
        (MASK, "%h: bool[S, S] = logical_not(%seen)\n  %m: f32[B, 4, S, S] = where(%h, %low, %s)", {"scale": 0.5}),
        (MASK, "%a: f32[S, S] = where(%seen, %zero, %inf)\n  %m: f32[B, 4, S, S] = add(%a, %s)", {"scale": 0.5}),
        (MASK, '%lows: f32[S, S] = full() {dtype = "f32", shape = [S, S], value = -1e+30}\n'
         "  %m: f32[B, 4, S, S] = where(%seen, %s, %lows)", {"scale": 0.5}),
        (MASK, "%d: i64[S, S] = abs(%gap)\n  %b: bool[S, S] = lt(%d, %two)\n"
         "  %m: f32[B, 4, S, S] = where(%b, %s, %inf)", {"scale": 0.5, "window": 2, "causal": False}),
        ("softmax(%m)", "softmax(%s)", {"scale": 0.5, "causal": False}),
    ],
)  # fmt: skip
def test_spellings(old: str, new: str, attrs: dict[str, object]) -> None:
    assert old in PLAIN
    text = PLAIN.replace(old, new)
    assert dict(attention_of(text).attrs) == attrs
    equivalent(raise_attention, text, BOUND)


def test_queries_that_are_scaled_before_stay_so() -> None:
    text = PLAIN.replace("matmul(%q, %kt)", "matmul(%qs, %kt)").replace(
        "  %l: f32", "  %qs: f32[B, 4, S, 4] = mul(%q, %scale)\n  %l: f32"
    )
    assert dict(attention_of(text).attrs) == {"scale": 0.5}
    equivalent(raise_attention, text, BOUND)


CUT = "%p: f32[B, 4, S, S] = softmax(%m) {axis = 3}  // layers.0.self_attn\n  %y: f32[B, 4, S, 6] = matmul(%p, %v)"


@pytest.mark.parametrize(
    ("text", "old", "new", "reason", "at"),
    [
        (PLAIN, "-> (%y)", "-> (%y, %p)", "the attention weights are read elsewhere, so they have to be computed", "p"),
        (PLAIN, "%p: f32", "%lb: f32[B, 4, S, S] = mul(%m, %bias)\n  %p: f32", "", ""),
        (PLAIN, "le(%i, %qi)", "lt(%i, %qi)",
         "the mask is not one that is known: -q + k + 1 <= 0 hides a query's own key", "seen"),
        (PLAIN, "%seen, %s, %inf", "%pad4, %s, %inf",
         "recognised as a padding mask (padding by %pad), which op attention does not express", "m"),
        (PLAIN, MASK, "%early: bool[S] = lt(%i, %two)\n  %pre: bool[S, S] = add(%seen, %early)\n"
         "  %m: f32[B, 4, S, S] = where(%pre, %s, %inf)",
         "recognised as a prefix mask (causal, prefix of 2 tokens), which op attention does not express", "m"),
        (PLAIN, MASK, "%d: i64[S, S] = abs(%gap)\n  %b: bool[S, S] = lt(%d, %two)\n"
         "  %b1: f32[B, 4, S, S] = where(%b, %s, %inf)\n  %m: f32[B, 4, S, S] = add(%b1, %bias)",
         "the mask cannot be read: %bias is a table of floats from outside", "m"),
        (PLAIN, MASK, "%e: f32[B, 4, S, S] = exp(%s)\n  %e1: f32[B, 4, S, S] = add(%s, %e)\n"
         "  %m: f32[B, 4, S, S] = where(%seen, %e1, %inf)",
         "the mask cannot be read: exp has no meaning as a mask", "e"),
        (PLAIN, MASK, "%e: f32[B, 4, S, S] = mul(%s, %s)\n  %e1: f32[B, 4, S, S] = add(%s, %e)\n"
         "  %m: f32[B, 4, S, S] = where(%seen, %e1, %inf)",
         "add between the product of queries and keys and the softmax", "e1"),
        (PLAIN, "transpose(%k) {perm = [0, 1, 3, 2]}", "reshape(%k) {shape = [B, 4, 4, S]}",
         "the keys are not transposed, so their heads cannot be told", "l"),
        (PLAIN, "softmax(%m) {axis = 3}", "softmax(%m) {axis = 2}",
         "logits must be [B, H, S, T] with softmax over T, are f32[B, 4, S, S]", "p"),
        (FULL, "end = S, start = 0}\n  %y", "end = S + 1, start = 1}\n  %y",
         "what is joined to the logits is no sink: one constant a head, cut off again", "j"),
        (FULL, "  const %sink: f32[4]\n", "",
         "what is joined to the logits is no sink: one constant a head, cut off again", "j"),
    ],
)  # fmt: skip
def test_declines(text: str, old: str, new: str, reason: str, at: str) -> None:
    assert old in text
    changed = text.replace(old, new).replace(") -> (", ", %pad: bool[B, S], %bias: f32[B, 4, S, S]) -> (", 1)
    changed = changed.replace(
        "  %i: i64", "  %pad4: bool[B, 1, 1, S] = reshape(%pad) {shape = [B, 1, 1, S]}\n  %i: i64", 1
    )
    if old.startswith("  const"):
        changed = changed.replace(") -> (", ", %sink: f32[4]) -> (", 1)
    if not reason:  # an unrelated reader of logits below the softmax does not stand in the way
        assert attention_of(changed).op == "attention"
        return
    assert untouched(raise_attention, changed) == [(reason, at)]


def test_weights_that_are_cut_or_read_twice() -> None:
    cut = CUT.replace(
        "%y: f32[B, 4, S, 6] = matmul(%p, %v)", "%h: f32[B, 4, S, 2] = slice(%p) {axis = 3, end = 2, start = 0}"
    )
    cut += (
        "\n  %v2: f32[B, 4, 2, 6] = slice(%v) {axis = 2, end = 2, start = 0}\n  %y: f32[B, 4, S, 6] = matmul(%h, %v2)"
    )
    sized = PLAIN.replace(CUT, cut).replace("dim S in [1, 64]", "dim S in [2, 64]")
    assert untouched(raise_attention, sized) == [("a part of the weights is cut off", "h")]
    twice = PLAIN.replace("-> (%y)", "-> (%y, %z)").replace(
        "matmul(%p, %v)  // layers.0.self_attn", "matmul(%p, %v)\n  %z: f32[B, 4, S, S] = neg(%p)"
    )
    reason = "the attention weights are read elsewhere, so they have to be computed"
    assert untouched(raise_attention, twice) == [(reason, "z")]


def test_a_softmax_that_is_no_attention_is_no_site() -> None:
    text = "graph @g(%x: f32[4, 8], %v: f32[8, 3]) -> (%y) {\n %p: f32[4, 8] = softmax(%x) {axis = 1}\n"
    text += " %y: f32[4, 3] = matmul(%p, %v)\n}"
    assert untouched(raise_attention, text) == [] and written_out(read(text)) == []


def test_the_bound_can_fail() -> None:
    """Each attribute off by a little, or a head order mixed up: seen."""
    before = read(FULL)
    after, _ = apply(raise_attention, before)
    for name, value in (("scale", 0.5001), ("softcap", 3.01), ("causal", False), ("window", 2)):
        assert error_in_eps(before, _with(after, name, value), 0) > BOUND


def _with(graph: Graph, name: str, value: float) -> Graph:
    nodes = [
        replace(n, attrs=tuple(sorted({**dict(n.attrs), name: value}.items()))) if n.op == "attention" else n
        for n in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


@settings(max_examples=40, deadline=None)
@given(
    scale=st.sampled_from(["", "mul", "div"]), cap=st.booleans(), shared=st.booleans(), sink=st.booleans(),
    masks=st.lists(st.tuples(st.sampled_from(["seen", "near"]), st.sampled_from(["where", "add"])), max_size=3),
    seed=st.integers(0, 2**16),
)  # fmt: skip
def test_any_combination(
    scale: str, cap: bool, shared: bool, sink: bool, masks: list[tuple[str, str]], seed: int
) -> None:
    """Scale, cap, masks, shared heads and sinks, each there or not: raised with those attributes, and equivalent."""
    names = {name for name, _ in masks}
    graph = read(combined(scale, cap, shared, sink, masks), seed=seed)
    after, declines = apply(raise_attention, graph)
    if names == {"near"}:  # a window without causality sees all keys ahead: no known mask
        assert after is graph and "a query sees 1 keys back and all ahead" in declines[0].reason
        return
    (node,) = [n for n in after.nodes if n.op == "attention"]
    assert not written_out(after) and apply(raise_attention, after)[0] is after
    assert to_text(parse(to_text(after))) == to_text(after)
    got = {name: node.attr(name) for name in ("causal", "window", "scale", "softcap")}
    want = {"causal": "seen" in names, "window": 2 if "near" in names else 0,
            "scale": {"": 1.0, "mul": 0.5, "div": 2.0}[scale], "softcap": 3.0 if cap else 0.0}  # fmt: skip
    assert got == want and (node.get("sinks") is not None) == sink
    assert node["k"].tensor.shape[2] == (2 if shared else 4)
    assert error_in_eps(graph, after, seed) <= 4 * BOUND  # logits of scale 2 sharpen the softmax


def combined(scale: str, cap: bool, shared: bool, sink: bool, masks: list[tuple[str, str]]) -> str:
    """The text of an attention written out."""
    kv = "%k: f32[B, 2, S, 4], %v: f32[B, 2, S, 6]"
    head = HEAD if shared else HEAD.replace(kv, kv.replace("B, 2", "B, 4"))
    lines = FULL[len(HEAD) :].strip().split("\n")
    start = "\n  ".join(lines[i].strip() for i in (0, 1, 2)) + "\n  %gap: i64[S, S] = sub(%qi, %i)\n  "
    start += "%near: bool[S, S] = lt(%gap, %two)\n  "
    start += "\n  ".join(line.strip() for line in lines[4:10]) if shared else ""
    k, v, at = ("%kr", "%vr", "%l") if shared else ("%k", "%v", "%l")
    body = [f"%kt: f32[B, 4, 4, S] = transpose({k}) {{perm = [0, 1, 3, 2]}}", "%l: f32[B, 4, S, S] = matmul(%q, %kt)"]

    def step(op: str) -> None:
        nonlocal at
        name = f"%n{len(body)}"
        body.append(f"{name}: f32[B, 4, S, S] = {op.replace('@', at)}")
        at = name

    for op in [f"{scale}(@, %scale)"] * bool(scale) + ["div(@, %cap)", "tanh(@)", "mul(@, %cap)"] * cap:
        step(op)
    for name, how in masks:
        if how == "add":
            body.append(f"%a{len(body)}: f32[S, S] = where(%{name}, %zero, %low)")
            step(f"add(@, %a{len(body) - 1})")
        else:
            step(f"where(%{name}, @, %inf)")
    if sink:
        body += ["%s4: f32[1, 4, 1, 1] = reshape(%sink) {shape = [1, 4, 1, 1]}",
                 "%sx: f32[B, 4, S, 1] = expand(%s4) {shape = [B, 4, S, 1]}",
                 f"%j: f32[B, 4, S, S + 1] = concat({at}, %sx) {{axis = 3}}",
                 "%p: f32[B, 4, S, S + 1] = softmax(%j) {axis = 3}",
                 "%w: f32[B, 4, S, S] = slice(%p) {axis = 3, end = S, start = 0}"]  # fmt: skip
    else:
        body.append(f"%w: f32[B, 4, S, S] = softmax({at}) {{axis = 3}}")
    body.append(f"%y: f32[B, 4, S, 6] = matmul(%w, {v})")
    return head + "  " + start + "\n  " + "\n  ".join(body) + "\n}"
