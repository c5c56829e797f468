"""pack_segments and share_uniform_rows: golden text, ragged batches against the padded program, refusals by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fretsaw.ir import Graph, run
from fretsaw.ir.errors import PassError
from fretsaw.passes.api import apply
from fretsaw.passes.evidence.check import as_f64
from fretsaw.passes.packed.pack_segments import pack_segments
from fretsaw.passes.packed.pack_tokens import pack_tokens
from fretsaw.passes.packed.share_uniform_rows import share_uniform_rows
from tests.passes.kit import golden, read

HEAD = """
graph @g(%input_ids: i64[B, S], %positions: i64[B, S]) -> (%out) {
  phase fused
  dim B in [1, 4]
  dim S in [1, 32]
  const %table: f32[16, 8]
  const %places: f32[32, 8]
  const %types: f32[2, 8]
  const %w: f32[8, 8]
  %e: f32[B, S, 8] = embedding(%input_ids, %table)  // embed
  %p: f32[B, S, 8] = embedding(%positions, %places)  // embed
"""
BODY = """  %zeros: i64[B, S] = full() {dtype = "i64", shape = [B, S], value = 1}
  %t: f32[B, S, 8] = embedding(%zeros, %types)  // types
  %f: f32[B, S, 8] = add(%e, %t)  // embed
  %x: f32[B, S, 8] = add(%f, %p)  // embed
  %q: f32[B, S, 2, 4] = reshape(%x) {shape = [B, S, 2, 4]}  // attn
  %o: f32[B, S, 2, 4] = attention(%q, %q, %q) {causal = false, scale = 0.5, window = 3}  // attn
  %h: f32[B, S, 8] = reshape(%o) {shape = [B, S, 8]}  // attn
"""
MEAN = '  %m: f32[B, 8] = pool(%h) {kind = "mean"}  // pooling\n  %out: f32[B, 8] = l2_norm(%m)  // normalize\n}\n'
AFTER = """
graph @g(%tokens: i32[T], %positions: i32[T], %cu: i32[B + 1]) -> (%out) {
  phase packed
  dim T in [0, 128]
  dim B in [1, 4]
  const %table: f32[16, 8]
  const %places: f32[32, 8]
  const %types: f32[2, 8]
  const %w: f32[8, 8]
  %e: f32[T, 8] = embedding(%tokens, %table)  // embed
  %p: f32[T, 8] = embedding(%positions, %places)  // embed
  %zeros: i64[T] = full() {dtype = "i64", shape = [T], value = 1}
  %t: f32[T, 8] = embedding(%zeros, %types)  // types
  %f: f32[T, 8] = add(%e, %t)  // embed
  %x: f32[T, 8] = add(%f, %p)  // embed
  %q: f32[T, 2, 4] = reshape(%x) {shape = [T, 2, 4]}  // attn
  %o: f32[T, 2, 4] = segment_attention(%q, %q, %q, %cu) {causal = false, scale = 0.5, window = 3}  // attn <pack_segments>
  %h: f32[T, 8] = reshape(%o) {shape = [T, 8]}  // attn
  %m: f32[B, 8] = segment_pool(%h, %cu) {kind = "mean"}  // pooling <pack_segments>
  %out: f32[B, 8] = l2_norm(%m)  // normalize
}
"""  # noqa: E501  a node is one line


def padded(graph: Graph, ids: np.ndarray) -> np.ndarray:
    """The padded program on one sequence alone, which needs no padding: hidden [S, D] or embedding [D]."""
    feed = {"input_ids": ids[None].astype(np.int64), "positions": np.arange(len(ids))[None]}
    row: np.ndarray = run(graph, feed)[0][0]
    return row


def packed(graph: Graph, sequences: Sequence[np.ndarray]) -> np.ndarray:
    """The packed program on all sequences at once."""
    lengths = [len(ids) for ids in sequences]
    feed = {
        "tokens": np.concatenate(sequences).astype(np.int32),
        "positions": np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        "cu": np.cumsum([0, *lengths]).astype(np.int32),
    }
    out: np.ndarray = run(graph, feed)[0]
    return out


def ids_of(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 16, n) for n in lengths]


ROUNDING = 1e-14  # in f64, of values near one: the same sums, which NumPy adds up in another order
RAGGED = [(5, 5), (1,), (32,), (0, 7, 0), (1, 32, 1, 9), (0, 0), (3, 0, 1, 32)]


def test_golden() -> None:
    golden(pack_segments, HEAD + BODY + MEAN, AFTER)


@pytest.mark.parametrize("lengths", RAGGED)
@pytest.mark.parametrize("kind", ["first", "last", "mean", "max", "mean_sqrt"])
def test_pooled_ragged_batch_equals_each_sequence_padded(kind: str, lengths: Sequence[int]) -> None:
    before = as_f64(read(HEAD + BODY + MEAN.replace("mean", kind)))
    after, _ = apply(pack_segments, before)
    sequences = ids_of(lengths)
    got = packed(after, sequences)
    assert got.shape == (len(lengths), 8)
    for ids, row in zip(sequences, got, strict=True):
        want = padded(before, ids) if len(ids) else np.zeros(8)  # a sequence without tokens has the zero vector
        np.testing.assert_allclose(row, want, rtol=0, atol=64 * np.finfo(np.float64).eps)


@pytest.mark.parametrize("lengths", RAGGED)
def test_hidden_states_of_a_ragged_batch(lengths: Sequence[int]) -> None:
    before = as_f64(read((HEAD + BODY + "}\n").replace("(%out)", "(%h)")))
    after, _ = apply(pack_segments, before)
    sequences = ids_of(lengths)
    want = [padded(before, ids) for ids in sequences if len(ids)] or [np.zeros((0, 8))]
    np.testing.assert_allclose(packed(after, sequences), np.concatenate(want), rtol=0, atol=ROUNDING)


def test_the_comparison_sees_a_neighbour() -> None:
    """Offsets that let one sequence into another change the result far beyond the bound."""
    before = read(HEAD + BODY + MEAN)
    after, _ = apply(pack_segments, before)
    a, b = ids_of((5, 6))
    apart = packed(after, [a, b])
    together = packed(after, [np.concatenate([a, b])])
    assert np.abs(apart[0] - together[0]).max() > 1e-2


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ("%out: f32[B, 8] = mean(%h) {axis = 1}", "mean"),
        ("%out: f32[B, 8] = max(%h) {axis = 1}", "max"),
        ("%s: f32[B, 1, 8] = slice(%h) {axis = 1, end = 1, start = 0}\n"
         "  %out: f32[B, 8] = reshape(%s) {shape = [B, 8]}", "first"),
        ("%s: f32[B, 1, 8] = mean(%h) {axis = 1, keepdims = true}\n  %out: f32[B, 1, 8] = neg(%s)", "mean"),
        ("%s: f32[B, 8] = max(%h) {axis = 1}\n  %n: f32[B, 8] = linear(%s, %w)\n  %r: f32[B, 2, 4] = reshape(%n) "
         "{shape = [B, 2, 4]}\n  %out: f32[B, 2, 4] = softmax(%r) {axis = 2}", "max"),
    ],
)  # fmt: skip
def test_pooling_written_out(lines: str, kind: str) -> None:
    before = as_f64(read(HEAD + BODY + f"  {lines}\n}}\n"))
    after, _ = apply(pack_segments, before)
    assert [n.attr("kind") for n in after.nodes if n.op == "segment_pool"] == [kind]
    sequences = ids_of((4, 1, 32))
    want = np.stack([padded(before, ids) for ids in sequences])
    np.testing.assert_allclose(packed(after, sequences), want, rtol=0, atol=ROUNDING)


def test_token_types_may_be_an_input() -> None:
    text = (HEAD + BODY + MEAN).replace("%positions: i64[B, S])", "%positions: i64[B, S], %kinds: i64[B, S])")
    text = text.replace("embedding(%zeros, ", "embedding(%kinds, ")
    text = "\n".join(line for line in text.splitlines() if "%zeros" not in line)
    after, _ = apply(pack_segments, read(text))
    assert [f"{v.name}: {v.type}" for v in after.inputs] == [
        "tokens: i32[T]", "positions: i32[T]", "kinds: i32[T]", "cu: i32[B + 1]",
    ]  # fmt: skip


REFUSED = [
    ("%y: f32[B, S, 8] = softmax(%h) {axis = 1}", "softmax mixes tokens: it works along axis 1, which holds tokens"),
    ("%y: f32[B, S, 8] = cumsum(%h) {axis = 0}", "cumsum mixes tokens: it works along axis 0, which holds tokens"),
    ("%y: f32[B, 8] = mean(%p2) {axis = 0}", "mean mixes tokens: its shape [8]"),
    ("%t2: f32[B, 8, S] = transpose(%h) {perm = [0, 2, 1]}", "transpose mixes tokens: its shape [B, 8, S]"),
    ("%i: i64[S] = iota() {size = S}", "iota mixes tokens: its shape [S] does not begin"),
    ("%s: f32[B, S, S] = full() {shape = [B, S, S], value = 1.0}", "full mixes tokens: its shape [B, S, S] holds"),
    ("%u: f32[B, 1, 8] = mean(%h) {axis = 1, keepdims = true}\n  %y: f32[B, S, 8] = sub(%h, %u)",
     "sub mixes tokens: %u f32[B, 1, 8] is broadcast over tokens"),
    ("%u: f32[B, 8] = max(%h) {axis = 1}\n  %y: f32[B, 8] = softmax(%u) {axis = 0}",
     "softmax mixes tokens: it works along axis 0, which holds tokens"),
    ("%y: f32[B, 1, 8] = slice(%h) {axis = 1, end = 2, start = 1}", "slice mixes tokens: it moves the token axes"),
    ("%y: f32[B, S, 8] = slice(%h) {axis = 1, end = S, start = 0}", "slice mixes tokens: it works along axis 1"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_refuses_what_mixes_otherwise(line: str, message: str) -> None:
    if "%p2" in line:
        line = '%p2: f32[B, 8] = pool(%h) {kind = "max"}\n  ' + line.replace("f32[B, 8] = mean", "f32[8] = mean")
    lines = line.split("\n")
    text = HEAD + BODY + "\n".join([*lines[:-1], f"  {lines[-1].strip()}  // encoder.layer.7"]) + "\n" + MEAN
    with pytest.raises(PassError) as error:
        apply(pack_segments, read(text))
    assert message in error.value.what and "encoder.layer.7" in error.value.where
    assert error.value.when == "pass pack_segments"
    assert "only attention and pooling may look at other tokens" in error.value.hint


def test_refuses_other_inputs_outputs_and_fixed_batches() -> None:
    text = HEAD + BODY + MEAN
    with pytest.raises(PassError, match="no packed form for input %mask: f32"):
        apply(pack_segments, read(text.replace("i64[B, S]) ->", "i64[B, S], %mask: f32[B, S]) ->", 1)))
    with pytest.raises(PassError, match="output %w .* is neither per token nor per sequence"):
        apply(pack_segments, read(text.replace("-> (%out)", "-> (%out, %w)")))
    with pytest.raises(PassError, match=r"input_ids is \[2, S\], packing needs any number of sequences"):
        apply(pack_segments, read(text.replace("B,", "2,").replace("  dim B in [1, 4]\n", "")))


def test_decoders_and_encoders_are_told_apart() -> None:
    encoder = read(HEAD + BODY + MEAN)
    assert apply(pack_tokens, encoder)[0] is encoder
    causal = read((HEAD + BODY + "}\n").replace("(%out)", "(%h)").replace("causal = false, ", ""))
    assert apply(pack_segments, causal)[0] is causal
    pooled = read((HEAD + BODY + MEAN).replace("causal = false, ", "").replace('"mean"', '"last"'))
    after, _ = apply(pack_segments, pooled)  # a causal model that embeds texts
    assert after.phase == "packed" and after.count("segment_attention") == 1


def test_uniform_rows_golden() -> None:
    before = read(AFTER)
    after, _ = apply(share_uniform_rows, before)
    (row,) = (c for v, c in after.consts.items() if v.name == "t.row")
    types = next(c for v, c in before.consts.items() if v.name == "types")
    np.testing.assert_array_equal(row.load(), types.load()[1])
    assert after.count("embedding") == 2 and after.count("full") == 0
    np.testing.assert_array_equal(packed(after, ids_of((3, 9))), packed(before, ids_of((3, 9))))
    assert apply(share_uniform_rows, after)[0] is after


@pytest.mark.parametrize(
    ("old", "new", "reason", "at"),
    [
        ("%f: f32[T, 8] = add(%e, %t)", "%f: f32[T, 8] = linear(%t, %w)", "linear reads a row for each token", "f"),
        ("%f: f32[T, 8] = add(%e, %t)", "%f: f32[T, 8] = add(%t, %t)", "add reads a row for each token", "f"),
        ("-> (%out)", "-> (%out, %t)", "all rows are a graph output", "t"),
        ("value = 1", "value = 2", "row 2 is not in the table", "t"),
    ],
)
def test_uniform_rows_declines(old: str, new: str, reason: str, at: str) -> None:
    before = read(AFTER.replace(old, new))
    after, declines = apply(share_uniform_rows, before)
    assert after is before and [(d.reason, d.at.out.name) for d in declines] == [(reason, at)]
