"""A pass that does not reach what it should fails the compile: every shipped pass, its pattern broken in one place.

Passes whose contract names sites fail by themselves, with every site and every reason. The others fail when they were
requested and reach nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fretsaw.ir import Graph, parse, verify
from fretsaw.ir.errors import FretsawError, PassError
from fretsaw.passes.api import Pass
from fretsaw.passes.kit.contract import hold
from fretsaw.passes.pipeline import ON_REQUEST, PIPELINE
from tests.passes import (
    test_drop_casts,
    test_fold_bias,
    test_fold_norm_gain,
    test_merges,
    test_pack_tokens,
    test_raise_attention,
    test_raise_experts,
    test_raise_gated_mlp,
    test_raise_gelu,
    test_raise_layer_norm,
    test_raise_rms_norm,
    test_raise_rope,
    test_raise_router,
)
from tests.passes.kit import read
from tests.passes.sparse import layers

SHIPPED: dict[str, Pass] = {p.name: p for p in (*(p for ps in PIPELINE.values() for p in ps), *ON_REQUEST)}
SHIPPED["sparse_attention"] = SHIPPED["sparse_attention"].configured({"method": "xattention"})
Change = tuple[str, str]
# They build a new program and refuse what they cannot pack by themselves: below, and in their own tests.
PACKING = {"pack_tokens", "pack_segments", "share_uniform_rows"}


def at(text: str, line: str, module: str) -> Change:
    """The change that gives the node on ``line`` a module path."""
    assert text.count(line) == 1, line
    return line, f"{line}  // {module}"


ROPED = test_raise_rope.HALVES.replace("-> (%y)", "-> (%o)").replace(
    "%y: f32[B, 2, S, 8] = add(%xc, %rs)\n",
    "%y: f32[B, 2, S, 8] = add(%xc, %rs)  // layers.3.self_attn\n"
    "  %t: f32[B, S, 2, 8] = transpose(%y) {perm = [0, 2, 1, 3]}\n"
    "  %u: f32[B, S, 2, 8] = transpose(%x) {perm = [0, 2, 1, 3]}\n"
    "  %o: f32[B, S, 2, 8] = attention(%t, %u, %u) {scale = 0.5}  // layers.3.self_attn\n",
)
TINY = "graph @g(%x: f32[4, 8], %z: f32[4, 8]) -> (%y) {\n "
TAKEN = (
    "graph @g(%x: f32[T, 4], %rows: i32[R]) -> (%y) {\n  dim R in [1, 8]\n  dim T in [1, 64]\n  const %w: f32[3, 4]\n"
    "  %l: f32[T, 3] = linear(%x, %w)  // lm_head\n  %y: f32[R, 3] = take(%l, %rows)\n}"
)
# pass -> a graph where it reaches its sites, what breaks the pattern, and lines of the error.
BREAKS: dict[str, tuple[str, Sequence[Change], Sequence[str]]] = {
    "raise_attention": (
        test_raise_attention.PLAIN, [("le(%i, %qi)", "lt(%i, %qi)  // model")],
        ["raise_attention missed 1 of 1 sites", "  at    %y   layers.0.self_attn",
         "missed  %y (matmul)  layers.0.self_attn",
         "declined  %seen (lt)  model: the mask is not one that is known: -q + k + 1 <= 0 hides a query's own key"]),
    "raise_rms_norm": (
        test_raise_rms_norm.BEFORE, [("mul(%x, %r)", "mul(%w, %r)")],
        ["raise_rms_norm missed 1 of 1 sites", "  at    %r   norm", "missed  %r (rsqrt)  norm",
         "declined  %m (mean)  norm: the mean is not of the squares of what is scaled"]),
    "raise_layer_norm": (
        test_raise_layer_norm.BEFORE,
        [("axis = 1", "axis = 0"), ("f32[B, 1]", "f32[1, 8]")],
        ["raise_layer_norm missed 1 of 1 sites", "  at    %n   norm", "missed  %n (rms_norm)  norm",
         "declined  %m (mean)  norm: the mean is not over the last axis"]),
    "raise_gelu": (
        test_raise_gelu.BEFORE, [("data([0.044715])", "data([0.05])"),
                                 at(test_raise_gelu.BEFORE, "tanh(%i)", "mlp.act")],
        ["raise_gelu was requested and reached no site",
         "declined  %t (tanh)  mlp.act: tanh is not of sqrt(2/pi) (x + 0.044715 x^3)"]),
    "raise_gated_mlp": (
        test_raise_gated_mlp.SILU, [("mul(%g, %s)  // mlp\n  %y: f32[B, 8] = mul(%a, %u)",
                                     "mul(%g, %u)  // mlp\n  %y: f32[B, 8] = mul(%s, %a)"), ("-> (%y)", "-> (%y, %a)")],
        ["raise_gated_mlp missed 1 of 1 sites", "  at    %s   mlp", "missed  %s (sigmoid)  mlp",
         "declined  %a (mul)  mlp: the inner product is read elsewhere too"]),
    "raise_router": (
        test_raise_router.BEFORE, [("%z: i64[T, 2] = neg(%i)", "%z: i64[T, 2] = neg(%i)\n  %u: f32[T, 2] = neg(%v)"),
                                   ("topk(%p) {k = 2}", "topk(%p) {k = 2}  // mlp.gate"),
                                   ("-> (%y, %z)", "-> (%y, %z, %u)")],
        ["raise_router missed 1 of 1 sites", "  at    %v   mlp.gate", "missed  %v (topk)  mlp.gate",
         "declined  %v (topk)  mlp.gate: the weights are read both before and after they are normalized"]),
    "raise_experts": (
        test_raise_experts.PICKED, [("silu(%gate)", "tanh(%gate)")],
        ["raise_experts missed 1 of 1 sites", "  at    %y   mlp.experts", "missed  %y (sum)  mlp.experts",
         "declined  %o3 (matmul)  mlp.experts: the gate's activation is not known"]),
    "raise_rope": (
        ROPED, [("cos(%e)", "cos(%e2)"), ("  %c0:", "  %e2: f32[B, S, 8] = mul(%e, %scale)\n  %c0:")],
        ["raise_rope missed 1 of 1 sites", "  at    %o   layers.3.self_attn",
         "missed  %o (attention)  layers.3.self_attn",
         "cos: the angle is not positions times a constant"]),
    "merge_qkv": (
        test_merges.QKV, [("linear(%x, %a.v.weight)", "linear(%x, %a.k.weight)")],
        ["merge_qkv missed 1 of 1 sites", "  at    %o   a", "missed  %o (attention)  a",
         "declined  %k (linear)  a.k: the weight is tied; joining would copy it"]),
    "merge_gate_up": (
        test_merges.GLU, [("linear(%x, %m.up.weight)", "linear(%x, %m.gate.weight)")],
        ["merge_gate_up missed 1 of 1 sites", "  at    %y   m", "missed  %y (mul)  m",
         "declined  %g (linear)  m.gate: the weight is tied; joining would copy it"]),
    "split_head_slices": (
        test_merges.HEADS, [("-> (%o)", "-> (%o, %p)")],
        ["split_head_slices was requested and reached no site",
         "declined  %p (linear)  qkv: the projection has other readers"]),
    "widen_partial_rope": (
        test_raise_rope.PARTIAL, [("end = 11, start = 8", "end = 12, start = 9")],
        ["widen_partial_rope was requested and reached no site",
         "the slices do not lie side by side along the last axis"]),
    "fold_norm_gain": (
        test_fold_norm_gain.LAYER, [("-> (%q, %k)", "-> (%q, %k, %n)")],
        ["fold_norm_gain was requested and reached no site",
         "declined  %n (layer_norm)  norm: the norm is a graph output, its gain is seen"]),
    "quantize_weights": (
        "graph @g(%x: f32[T, 32]) -> (%y) {\n  phase packed\n  dim T in [1, 8]\n  const %v: f32[64, 32]\n"
        "  const %w: f32[8, 64]\n  %a: f32[T, 64] = linear(%x, %v)  // up\n"
        "  %y: f32[T, 8] = linear(%a, %w)  // head\n}",
        [("%x: f32[T, 32]", "%x: f32[T, 30]"), ("%v: f32[64, 32]", "%v: f32[64, 30]")],
        ["quantize_weights missed 1 of 2 sites",
         "declined  %a (linear)  up: its 30 input features are no multiple of groups of 32"]),
    "sparse_attention": (
        layers.layer_text(2), [("layer = 1, scale", "softcap = 30.0, layer = 1, scale")],
        ["sparse_attention missed 1 of 2 sites",
         "declined  %o1 (cached_attention)  layers.1.self_attn: it caps its logits at 30.0, which the scores of"]),
    "fold_bias": (
        test_fold_bias.ONE + " %a: f32[B, 4] = linear(%x, %w, %b)  // proj\n %y: f32[B, 4] = add(%a, %c)\n}",
        [("-> (%y)", "-> (%y, %a)")],
        ["fold_bias was requested and reached no site",
         "declined  %a (linear)  proj: the projection is read elsewhere too"]),
    "drop_casts": (
        test_drop_casts.BEFORE, [('%a: f32[B, 4] = cast(%x) {dtype = "f32"}', "%a: f32[B, 4] = neg(%a0)  // norm"),
                                 ("%x: f16[B, 4]", "%x: f16[B, 4], %a0: f32[B, 4]"),
                                 ('%j: i64[B, 4] = cast(%i) {dtype = "i64"}', "%j: i64[B, 4] = neg(%j0)"),
                                 ("%i: i8[B, 4]", "%i: i8[B, 4], %j0: i64[B, 4]"),
                                 ('%c: f16[B, 4] = cast(%b) {dtype = "f16"}', "%c: f16[B, 4] = neg(%x)"),
                                 ('%b: f64[B, 4] = cast(%a) {dtype = "f64"}\n', "")],
        ["drop_casts was requested and reached no site", "no node has the shape that the pass looks for"]),
    "drop_noops": (
        TINY + '%a: f32[4, 8] = cast(%x) {dtype = "f32"}\n %y: f32[4, 8] = neg(%a)\n}',
        [('cast(%x) {dtype = "f32"}', "abs(%x)")],
        ["drop_noops was requested and reached no site", "no node has the shape that the pass looks for"]),
    "dce": (
        TINY + "%a: f32[4, 8] = neg(%x)\n %y: f32[4, 8] = neg(%x)\n}",
        [("%y: f32[4, 8] = neg(%x)", "%y: f32[4, 8] = neg(%a)")],
        ["dce was requested and reached no site", "no node has the shape that the pass looks for"]),
    "cse": (
        TINY + "%a: f32[4, 8] = neg(%x)\n %b: f32[4, 8] = neg(%x)\n %y: f32[4, 8] = mul(%a, %b)\n}",
        [("%b: f32[4, 8] = neg(%x)", "%b: f32[4, 8] = abs(%x)")],
        ["cse was requested and reached no site", "no node has the shape that the pass looks for"]),
    "fold_constants": (
        TINY + "const %c: f32[8] = data([1, 2, 3, 4, 5, 6, 7, 8])\n %n: f32[8] = neg(%c)  // norm\n"
        " %y: f32[4, 8] = mul(%x, %n)\n}",
        [("-> (%y)", "-> (%y, %n)")],
        ["fold_constants was requested and reached no site",
         "declined  %n (neg)  norm: a graph output stays computed"]),
    "cancel_transposes": (
        TINY + "%a: f32[8, 4] = transpose(%x) {perm = [1, 0]}\n %b: f32[8, 4] = transpose(%z) {perm = [1, 0]}\n"
        " %y: f32[8, 4] = mul(%a, %b)  // mlp\n}",
        [("transpose(%z) {perm = [1, 0]}", "reshape(%z) {shape = [8, 4]}")],
        ["cancel_transposes was requested and reached no site", "the operands are not transposed alike"]),
    "hoist_rows": (
        TAKEN, [("-> (%y)", "-> (%y, %l)")],
        ["hoist_rows was requested and reached no site", "declined  %l (linear)  lm_head: others read all rows"]),
}  # fmt: skip


def run(p: Pass, graph: Graph) -> None:
    """``p`` with its contract: one that stands holds although nobody asked, the others are requested."""
    hold(p.name, p.sites, graph, p.run(graph), requested=not p.sites.standing)


def test_every_shipped_pass_is_here() -> None:
    assert set(SHIPPED) - PACKING == set(BREAKS)


@pytest.mark.parametrize("name", BREAKS)
def test_the_whole_pattern_is_reached(name: str) -> None:
    """Without the change the same graph passes, so that it is the change which fails."""
    run(SHIPPED[name], read(BREAKS[name][0]))


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_pattern_fails(name: str) -> None:
    text, changes, lines = BREAKS[name]
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    graph = read(text)
    with pytest.raises(PassError) as caught:
        run(SHIPPED[name], graph)
    shown = str(caught.value)
    assert shown.startswith(f"PassError: {lines[0]}\n") and f"  when  pass {name}" in shown
    for line in lines[1:]:
        assert line in shown, shown


def test_standing_contracts() -> None:
    """Which passes must reach their sites although nobody asked."""
    standing = {n for n, p in SHIPPED.items() if p.sites.standing}
    assert standing >= {
        "raise_attention", "raise_rms_norm", "raise_layer_norm", "raise_router", "raise_experts", "raise_rope",
        "raise_gated_mlp",
        "merge_qkv", "merge_gate_up",
    }  # fmt: skip


def test_packing_names_the_node_that_mixes_tokens() -> None:
    text = test_pack_tokens.BEFORE
    graph = parse(text.strip(), seed=0)
    verify(graph)
    run(SHIPPED["pack_tokens"], graph)
    broken = text.replace(
        test_pack_tokens.TAIL, "  %c: f32[B, S, 8] = cumsum(%y) {axis = 1}  // layers.7\n" + test_pack_tokens.TAIL
    ).replace("rms_norm(%y", "rms_norm(%c")
    assert broken != text
    with pytest.raises(FretsawError) as caught:
        run(SHIPPED["pack_tokens"], read(broken))
    assert "cumsum mixes tokens: it works along axis 1" in caught.value.what and "layers.7" in caught.value.where
