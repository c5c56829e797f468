"""Sparse attention over a KV cache: every block of 64 queries attends to listed blocks of 64 keys.

``idx i32[QB, G, KB]`` holds, for each query block (rows as ir/kv.py says) and each of G groups of heads, the key blocks
that it reads: the first ``cnt i32[QB, G]`` entries, strictly ascending; the rest is ignored. Head h belongs to group
``h * G // H``. The causal mask, and the spans of a head, hold inside the blocks. A sequence with a single token in the
step decodes: it sees all of its keys whatever is listed, unless ``decode`` says that lists hold for it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fretsaw.ir.dims import sym
from fretsaw.ir.kv import BLOCK, QueryBlock, ReferenceKvCache
from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, sizes, tensor
from fretsaw.ir.ops.cache import KV_CACHE, LAYER, is_cache
from fretsaw.ir.types import TensorType, ValueType

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]
QB, KB = sym("QB"), sym("KB")

ATTRS = {
    **LAYER,
    "scale": AttrSpec(float, required=True),
    "value_size": AttrSpec(int, required=True),
    "softcap": AttrSpec(float, 0.0),
    "sink": AttrSpec(tuple, ()),
    "window": AttrSpec(tuple, ()),
    "decode": AttrSpec(bool, False),
    "lse": AttrSpec(bool, False),
    "whole_prompt": AttrSpec(bool, False),
    "method": AttrSpec(str, ""),
}


def head_groups(heads: int, groups: int) -> list[int]:
    """Group of each head."""
    return [h * groups // heads for h in range(heads)]


def check_lists(q: TensorType, idx: TensorType, cnt: TensorType, width: object) -> None:
    """Lists fit queries [T, H, E]: idx i32[QB, G, width], cnt i32[QB, G], G divides H."""
    if idx.rank != 3 or idx.dtype != "i32" or idx.shape[0] != QB or (width is not None and idx.shape[2] != width):
        raise ShapeError(f"needs lists i32[QB, G, {width or 'n'}], got {idx}", "idx")
    if cnt.dtype != "i32" or cnt.shape != idx.shape[:2]:
        raise ShapeError(f"needs their lengths i32[QB, G] beside {idx}, got {cnt}", "cnt")
    heads, groups = q.shape[1], idx.shape[1]
    if not isinstance(heads, int) or not isinstance(groups, int) or groups < 1 or heads % groups:
        raise ShapeError(f"{heads} heads cannot share {groups} lists", "idx")


def _shape(types: Types, attrs: Attrs) -> Types:
    if not is_cache(types[0]):
        raise ShapeError(f"kv must be {KV_CACHE}, is {types[0]}", "kv")
    q, idx, cnt = (tensor(t, s) for t, s in zip(types[1:], ("q", "idx", "cnt"), strict=False))
    size = attrs["value_size"]
    if q.rank != 3 or not isinstance(size, int):
        raise ShapeError(f"needs q [T, H, E], got {q}", "q")
    check_lists(q, idx, cnt, KB)
    for name in ("sink", "window"):
        spans = attrs.get(name, ())
        assert isinstance(spans, tuple)
        if spans and (len(spans) != q.shape[1] or any(not isinstance(n, int) or n < 0 for n in spans)):
            raise ShapeError(f"{name} is one number of tokens per head, 0 or more: {q.shape[1]} of them", attr=name)
    out = [TensorType(q.dtype, (q.shape[0], q.shape[1], size))]
    return out + [TensorType("f32", q.shape[:2])] if attrs.get("lse") else out


def listed_keys(block: QueryBlock, listed: Array | None) -> Array:
    """Positions of the keys in listed key blocks (None: of all keys), ascending, those past the sequence left out."""
    if listed is None:
        return np.arange(block.end)
    keys = (listed.astype(np.int64)[:, None] * BLOCK + np.arange(BLOCK)[None, :]).reshape(-1)
    inside: Array = keys[keys < block.end]
    return inside


def visible(block: QueryBlock, keys: Array, sink: int, window: int) -> Array:
    """Which of ``keys`` (positions) the rows of a query block see in one head, bool [rows, keys].

    Args:
        sink, window: A key is seen if it is among the first ``sink`` or the last ``window`` slots; window 0: no span.
    """
    gap = block.positions[:, None] - keys[None, :]
    seen: Array = gap >= 0
    if window:
        seen &= (gap < window) | (keys < sink)[None, :]
    return seen


def softmax_mix(q: Array, k: Array, v: Array, seen: Array, sink: float | None, attrs: Attrs) -> tuple[Array, Array]:
    """One head, in the dtype of q: q [R, E], k [S, E], v [S, Ev], seen [R, S] -> ([R, Ev], natural log of the sums
    [R]). Rows that see nothing are zero, with -inf. ``sink`` is one more logit without a value."""
    s = (q @ k.T) * q.dtype.type(attrs["scale"])
    cap = q.dtype.type(attrs.get("softcap", 0.0))
    if cap:
        s = np.tanh(s / cap) * cap
    np.copyto(s, -np.inf, where=~seen)
    top = s.max(axis=1, initial=-np.inf if sink is None else sink)
    base = np.where(np.isneginf(top), 0, top)
    s -= base[:, None]
    e = np.exp(s, out=s)
    total = e.sum(axis=1) + (0 if sink is None else np.exp(sink - base))
    out = (e @ v) / np.where(total == 0, 1, total)[:, None]
    with np.errstate(divide="ignore"):
        return out.astype(q.dtype), (np.log(total) + base).astype(np.float32)


def _reference(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, q, idx, cnt, *rest = operands
    assert isinstance(kv, ReferenceKvCache)
    assert isinstance(q, np.ndarray) and isinstance(idx, np.ndarray) and isinstance(cnt, np.ndarray)
    sinks = rest[0] if rest else None
    assert sinks is None or isinstance(sinks, np.ndarray)
    heads = q.shape[1]
    sink, window = (attrs.get(name) or (0,) * heads for name in ("sink", "window"))
    assert isinstance(sink, tuple) and isinstance(window, tuple)
    out = np.zeros((*q.shape[:2], int(attrs["value_size"])), q.dtype)  # type: ignore[arg-type]
    lse = np.full(q.shape[:2], -np.inf, np.float32)
    stored: dict[int, tuple[Array, Array]] = {}
    for block in kv.query_blocks():
        if block.sequence not in stored:
            k, v = kv.read(int(attrs["layer"]), block.sequence)  # type: ignore[arg-type]
            stored = {block.sequence: (np.ascontiguousarray(k.swapaxes(0, 1)), np.ascontiguousarray(v.swapaxes(0, 1)))}
        k, v = stored[block.sequence]  # [K, S, E]
        free = block.single and not attrs.get("decode")
        for h, g in enumerate(head_groups(heads, idx.shape[1])):
            keys = listed_keys(block, None if free else idx[block.row, g, : cnt[block.row, g]])
            seen = visible(block, keys, 0 if free else int(sink[h]), 0 if free else int(window[h]))  # type: ignore[arg-type]
            mine = h * k.shape[0] // heads
            extra = None if sinks is None else float(sinks[h])
            rows = np.ascontiguousarray(q[block.tokens, h])
            out[block.tokens, h], lse[block.tokens, h] = softmax_mix(
                rows, k[mine, keys], v[mine, keys], seen, extra, attrs
            )
    return [out, lse] if attrs.get("lse") else [out]


def _flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """As if every block were listed: what the lists leave is known when they are made, not from types."""
    count, heads, size = sizes(operands[1])
    return heads * (2 * (size + sizes(results[0])[-1]) + 5) * count * (count + 1) // 2


define_op(
    "block_attention", "kv q idx cnt sinks?", shape=_shape, reference=_reference, attrs=ATTRS, effects=("kv",),
    flops=_flops,
    doc="Attention of this step's queries q [T, H, E] over listed key blocks of the cache -> [T, H, Ev], and with lse "
    "the natural logarithm of each row's sum, f32[T, H]. Lists: idx i32[QB, G, KB] of which cnt i32[QB, G] count, "
    "ascending. sink and window (per head, in tokens; none: no span) leave the first and the last keys of what is "
    "listed. A sequence with one token in the step sees everything unless decode is set. sinks [H] as in attention. "
    "whole_prompt: the lists are right only where a step holds a prompt whole. method says for people what chose them.",
    example="block_attention(%kv, %q, %idx, %cnt) {layer = 0, scale = 0.125, value_size = 64}",
)  # fmt: skip
