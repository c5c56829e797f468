"""pack_tokens and hoist_rows: golden text, the packed program against the padded one, refusals by name."""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.ir import ReferenceKvCache, run, to_text, verify
from fretsaw.ir.errors import PassError
from fretsaw.passes.api import apply
from fretsaw.passes.packed.hoist_rows import hoist_rows
from fretsaw.passes.packed.pack_tokens import pack_tokens
from tests.passes.kit import golden, read

HEAD = """
graph @g(%input_ids: i64[B, S], %positions: i64[B, S]) -> (%logits) {
  phase fused
  dim B in [1, 4]
  dim S in [1, 32]
  const %table: f32[16, 8]
  const %w: f32[8, 8]
  const %gain: f32[8]
  const %bias: f32[1, 1, 8]
  %e: f32[B, S, 8] = embedding(%input_ids, %table)  // embed
"""
TAIL = """  %n: f32[B, S, 8] = rms_norm(%y, %gain) {eps = 1e-06}  // norm
  %logits: f32[B, S, 16] = linear(%n, %table)  // head
}
"""
BEFORE = (
    HEAD
    + """  %q: f32[B, S, 2, 4] = reshape(%e) {shape = [B, S, 2, 4]}  // attn
  %o: f32[B, S, 2, 4] = attention(%q, %q, %q) {scale = 0.5, window = 3}  // attn
  %f: f32[B, S, 8] = reshape(%o) {shape = [B, S, 8]}  // attn
  %b: f32[B, S, 8] = add(%f, %bias)  // attn
  %l: f32[B*S, 8] = reshape(%b) {shape = [B*S, 8]}  // mlp
  %h: f32[B*S, 8] = linear(%l, %w)  // mlp
  %r: f32[B, S, 8] = reshape(%h) {shape = [B, S, 8]}  // mlp
  %y: f32[B, S, 8] = add(%e, %r)  // mlp
"""
    + TAIL
)
AFTER = """
graph @g(%tokens: i32[T], %positions: i32[T], %rows: i32[R], %kv: handle<kv_cache>) -> (%logits) {
  phase packed
  dim T in [1, 128]
  dim R in [0, 128]
  const %table: f32[16, 8]
  const %w: f32[8, 8]
  const %gain: f32[8]
  const %bias: f32[1, 1, 8]
  %e: f32[T, 8] = embedding(%tokens, %table)  // embed
  %q: f32[T, 2, 4] = reshape(%e) {shape = [T, 2, 4]}  // attn
  kv_append(%kv, %q, %q) {layer = 0}  // attn <pack_tokens>
  %o: f32[T, 2, 4] = cached_attention(%kv, %q) {layer = 0, scale = 0.5, value_size = 4, window = 3}  // attn <pack_tokens>
  %f: f32[T, 8] = reshape(%o) {shape = [T, 8]}  // attn
  %bias.packed: f32[1, 8] = reshape(%bias) {shape = [1, 8]}  // attn
  %b: f32[T, 8] = add(%f, %bias.packed)  // attn
  %l: f32[T, 8] = reshape(%b) {shape = [T, 8]}  // mlp
  %h: f32[T, 8] = linear(%l, %w)  // mlp
  %r: f32[T, 8] = reshape(%h) {shape = [T, 8]}  // mlp
  %y: f32[T, 8] = add(%e, %r)  // mlp
  %n: f32[T, 8] = rms_norm(%y, %gain) {eps = 1e-06}  // norm
  %logits.all: f32[T, 16] = linear(%n, %table)  // head
  %logits: f32[R, 16] = take(%logits.all, %rows)
}
"""  # noqa: E501  a node is one line


def test_golden() -> None:
    golden(pack_tokens, BEFORE, AFTER)


def test_rows_are_picked_right_behind_the_last_attention() -> None:
    after, declines = apply(hoist_rows, read(AFTER))
    lines = to_text(after).splitlines()
    takes = [line.split(" // ")[0].strip() for line in lines if " take(" in line]
    assert takes == [
        "%e.rows: f32[R, 8] = take(%e, %rows)",
        "%o.rows: f32[R, 2, 4] = take(%o, %rows)",
    ]
    assert lines[-4:] == [
        "  %y.rows: f32[R, 8] = add(%e.rows, %r.rows)  // mlp <hoist_rows>",
        "  %n.rows: f32[R, 8] = rms_norm(%y.rows, %gain) {eps = 1e-06}  // norm <hoist_rows>",
        "  %logits: f32[R, 16] = linear(%n.rows, %table)  // head <hoist_rows>",
        "}",
    ]
    assert [(d.reason, d.at.out.name) for d in declines] == [("cached_attention mixes rows", "o")]
    assert apply(hoist_rows, after)[0] is after


@pytest.mark.parametrize(
    ("lines", "reason", "at"),
    [
        ("  %y: f32[T, 8] = neg(%e)\n  %z: f32[T, 8] = neg(%y)", "others read all rows", "y"),
        ("  %y: f32[T, 8] = softmax(%e) {axis = 0}", "softmax is not known to map each row alone", "y"),
    ],
)
def test_hoist_declines(lines: str, reason: str, at: str) -> None:
    text = "graph @g(%e: f32[T, 8], %rows: i32[R]) -> (%o, %z) {\n phase packed\n dim T in [1, 9]\n dim R in [0, 9]\n"
    text += lines + "\n %o: f32[R, 8] = take(%y, %rows)\n}"
    text = text if "%z:" in lines else text.replace(", %z)", ")")
    before = read(text)
    after, declines = apply(hoist_rows, before)
    assert after is before and [(d.reason, d.at.out.name) for d in declines] == [(reason, at)]


def test_packed_batch_equals_padded_batch() -> None:
    before = read(BEFORE)
    after, _ = apply(pack_tokens, before)
    ids = np.random.default_rng(0).integers(0, 16, (2, 5))
    positions = np.broadcast_to(np.arange(5), (2, 5))
    want = run(before, {"input_ids": ids, "positions": positions})[0]
    cache = ReferenceKvCache(1, 2)
    cache.begin_step([5, 5])
    feed = {"tokens": ids.ravel().astype(np.int32), "positions": positions.ravel().astype(np.int32),
            "rows": np.arange(10, dtype=np.int32), "kv": cache}  # fmt: skip
    got = run(after, feed)[0].reshape(want.shape)
    assert np.abs(got - want).max() <= 64 * np.finfo(np.float32).eps * np.abs(want).max()


REFUSED = [
    ("%y: f32[B, S, 8] = softmax(%e) {axis = 1}", "softmax mixes tokens: it works along axis 1, which holds tokens"),
    ("%y: f32[B, S, 8] = cumsum(%e) {axis = 1}", "cumsum mixes tokens: it works along axis 1, which holds tokens"),
    ("%t: f32[B, 8, S] = transpose(%e) {perm = [0, 2, 1]}", "transpose mixes tokens: its shape [B, 8, S]"),
    ("%t: f32[B, S*8] = reshape(%e) {shape = [B, 8*S]}", "reshape mixes tokens: its shape [B, 8*S] does not begin"),
    ("%m: f32[B, 1, 8] = mean(%e) {axis = 1, keepdims = true}", "mean mixes tokens: its shape [B, 1, 8]"),
    ("%i: i64[S] = iota() {size = S}", "iota mixes tokens: its shape [S] does not begin"),
    (
        "%s: f32[B, S, S] = full() {shape = [B, S, S], value = 1.0}",
        "full mixes tokens: its shape [B, S, S] holds the tokens twice",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_refuses_what_mixes_tokens(line: str, message: str) -> None:
    line = line.replace("S*8", "8*S")
    text = HEAD + f"  {line}  // model.layers.7\n" + TAIL.replace("%y", "%e" if "%y" not in line else "%y")
    with pytest.raises(PassError) as error:
        apply(pack_tokens, read(text))
    assert message in error.value.what and "model.layers.7" in error.value.where


def test_refuses_other_inputs_and_outputs() -> None:
    with pytest.raises(PassError, match="no packed form for input %mask"):
        apply(pack_tokens, read(BEFORE.replace("i64[B, S]) ->", "i64[B, S], %mask: i64[B, S]) ->", 1)))
    with pytest.raises(PassError, match="a decoder has one output"):
        apply(pack_tokens, read(BEFORE.replace("-> (%logits)", "-> (%logits, %n)")))
    with pytest.raises(PassError, match="has an input input_ids"):
        apply(pack_tokens, read("graph @g(%x: f32[2]) -> (%y) {\n %y: f32[2] = neg(%x)\n}"))


def test_ids_used_as_numbers_are_widened() -> None:
    text = (
        HEAD + '  %c: f32[B, S] = cast(%input_ids) {dtype = "f32"}\n  %two: i64[B, S] = add(%positions, %positions)\n'
    )
    text += '  %d: f32[B, S] = cast(%two) {dtype = "f32"}\n  %s: f32[B, S] = add(%c, %d)\n'
    text += "  %u: f32[B, S, 1] = reshape(%s) {shape = [B, S, 1]}\n  %y: f32[B, S, 8] = mul(%e, %u)\n" + TAIL
    after, _ = apply(pack_tokens, read(text))
    verify(after)
    assert [n.op for n in after.nodes].count("cast") == 4
