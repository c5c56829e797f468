"""Scaled dot-product attention over one padded batch, token-major heads: q [B, S, H, E]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fretsaw.ir.attrs import float_of, int_of
from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, sizes, tensor
from fretsaw.ir.traits import Legal
from fretsaw.ir.types import TensorType, ValueType

ATTENTION_ATTRS = {
    "causal": AttrSpec(bool, True),
    "window": AttrSpec(int, 0),
    "scale": AttrSpec(float, required=True),
    "softcap": AttrSpec(float, 0.0),
}


BAND = 256  # queries of a long causal text that the reference works on at a time


def check_heads(q: TensorType, k: TensorType, v: TensorType) -> None:
    """Head counts and sizes of q, k, v [..., H, E] fit (grouped heads allowed)."""
    if q.shape[-1] != k.shape[-1]:
        raise ShapeError(f"head sizes differ: q has {q.shape[-1]}, k has {k.shape[-1]}", "k")
    if k.shape[:-1] != v.shape[:-1]:
        raise ShapeError(f"k {k} and v {v} differ before the last axis", "v")
    h, hkv = q.shape[-2], k.shape[-2]
    if not isinstance(h, int) or not isinstance(hkv, int) or hkv < 1 or h % hkv:
        raise ShapeError(f"{h} query heads cannot share {hkv} key heads", "k")


def _attention_shape(types: Sequence[ValueType], attrs: Mapping[str, Attr]) -> Sequence[ValueType]:
    q, k, v = (tensor(t, s) for t, s in zip(types, ("q", "k", "v"), strict=False))
    if not q.rank == k.rank == v.rank == 4 or q.shape[0] != k.shape[0]:
        raise ShapeError(f"needs q, k, v of rank 4 with one batch, got {q}, {k}, {v}", "q")
    check_heads(q, k, v)
    return [TensorType(q.dtype, (*q.shape[:-1], v.shape[-1]))]


def attend(q: Array, k: Array, v: Array, sinks: Array | None, q_pos: Array, attrs: Mapping[str, Attr]) -> Array:
    """One sequence. q [S, H, E] at slots q_pos [S]; k [T, K, E], v [T, K, Ev] at slots 0..T-1 -> [S, H, Ev]."""
    group = q.shape[1] // k.shape[1]
    out = np.empty((*q.shape[:2], v.shape[-1]), q.dtype)
    for rows, keys in _bands(q_pos, k.shape[0], attrs):
        hidden = ~_seen(q_pos[rows], keys.stop, attrs)  # [rows, keys]
        for head in range(k.shape[1]):  # one at a time: scores of a group, not of all heads, are in memory
            mine = slice(head * group, (head + 1) * group)
            heads = np.ascontiguousarray(q[rows, mine].transpose(1, 0, 2))  # [H/K, rows, E]
            sink = None if sinks is None else sinks[mine, None, None]
            mixed = _attend_group(heads, k[keys, head], v[keys, head], sink, hidden, attrs)
            out[rows, mine] = mixed.transpose(1, 0, 2)
    return out


def _bands(q_pos: Array, count: int, attrs: Mapping[str, Attr]) -> list[tuple[slice, slice]]:
    """Queries in bands, each with the keys up to the last one that it sees: half the arithmetic of a long causal text,
    and scores that fit a cache. One band up to :data:`BAND` queries."""
    if len(q_pos) <= BAND or not attrs.get("causal", True):
        return [(slice(0, len(q_pos)), slice(0, count))]
    starts = range(0, len(q_pos), BAND)
    return [(slice(a, a + BAND), slice(0, int(q_pos[a : a + BAND].max()) + 1)) for a in starts]


def _seen(q_pos: Array, count: int, attrs: Mapping[str, Attr]) -> Array:
    """Which of ``count`` keys each query sees, bool [S, T]."""
    gap = q_pos[:, None] - np.arange(count)[None, :]  # how far back the key is
    causal, window = attrs.get("causal", True), int_of(attrs, "window", 0)
    seen = gap >= 0 if causal else np.ones(gap.shape, bool)
    if window:
        seen &= gap < window if causal else np.abs(gap) < window
    return seen


def _attend_group(q: Array, k: Array, v: Array, sink: Array | None, hidden: Array, attrs: Mapping[str, Attr]) -> Array:
    """Heads that share keys: q [G, S, E], k [T, E], v [T, Ev], sink [G, 1, 1], hidden [S, T] -> [G, S, Ev]."""
    s = (q.reshape(-1, q.shape[-1]) @ np.ascontiguousarray(k).T).reshape(*q.shape[:2], -1)  # [G, S, T]
    s *= q.dtype.type(attrs["scale"])
    cap = float_of(attrs, "softcap", 0.0)
    if cap:
        s = np.tanh(s / q.dtype.type(cap)) * q.dtype.type(cap)
    np.copyto(s, -np.inf, where=hidden)
    top = s.max(axis=-1, keepdims=True, initial=-np.inf)
    top = top if sink is None else np.maximum(top, sink)
    s -= np.where(np.isneginf(top), 0, top)
    e = np.exp(s, out=s)
    total = e.sum(axis=-1, keepdims=True)
    if sink is not None:  # a logit per head that takes mass and gives nothing
        total += np.exp(sink - top)
    e /= np.where(total == 0, 1, total)
    out: Array = (e.reshape(-1, e.shape[-1]) @ np.ascontiguousarray(v)).reshape(*q.shape[:2], -1)
    return out


def _attention(arrays: Sequence[Array], attrs: Mapping[str, Attr]) -> Sequence[Array]:
    q, k, v = arrays[:3]
    sinks = arrays[3] if len(arrays) > 3 else None
    pos = np.arange(q.shape[1]) + (k.shape[1] - q.shape[1])
    return [np.stack([attend(q[b], k[b], v[b], sinks, pos, attrs) for b in range(q.shape[0])])]


def attention_flops(heads: int, queries: int, keys: int, features: int, attrs: Mapping[str, Attr]) -> int:
    """Per head and pair of query and key that is seen: a multiply-add per feature of key and value, and 5 for scale
    and softmax, 3 more for a soft cap. ``features`` is E + Ev; queries are the last of the keys."""
    per_pair = 2 * features + 5 + (3 if attrs.get("softcap", 0.0) else 0)
    return heads * per_pair * seen_pairs(queries, keys, attrs)


def seen_pairs(queries: int, keys: int, attrs: Mapping[str, Attr]) -> int:
    """Number of (query, key) pairs that mask and window leave."""
    window = int_of(attrs, "window", 0)
    slots = np.arange(keys - queries, keys)
    if attrs.get("causal", True):
        seen = slots + 1 if not window else np.minimum(slots + 1, window)
    elif window:
        seen = np.minimum(slots + window, keys) - np.maximum(slots - window + 1, 0)
    else:
        seen = np.full(queries, keys)
    return int(seen.sum())


def attention_scratch(queries: int, keys: int, group: int, attrs: Mapping[str, Attr], item: int) -> int:
    """Bytes of the scores of ``group`` heads that share keys, a mask and its parts; a causal text goes band by band."""
    rows = min(queries, BAND) if attrs.get("causal", True) else queries
    return keys * rows * (3 * item * group + 24)


def _attention_scratch(
    operands: Sequence[ValueType], results: Sequence[ValueType], attrs: Mapping[str, Attr], item: int
) -> int:
    (_, queries, heads, _), (_, keys, shared, _) = sizes(operands[0]), sizes(operands[1])
    return attention_scratch(queries, keys, heads // shared, attrs, item)


def _attention_flops(operands: Sequence[ValueType], results: Sequence[ValueType], attrs: Mapping[str, Attr]) -> int:
    (batch, queries, heads, size), keys = sizes(operands[0]), sizes(operands[1])[1]
    return batch * attention_flops(heads, queries, keys, size + sizes(operands[2])[-1], attrs)


define_op(
    "attention", "q k v sinks?", shape=_attention_shape, reference=_attention, attrs=ATTENTION_ATTRS,
    flops=_attention_flops, scratch=_attention_scratch, kind="attention",
    legal=Legal(last="fused", why="a packed program reads the KV cache"),
    doc="Softmax attention, q [B, S, H, E], k [B, S, K, E], v [B, S, K, Ev] -> [B, S, H, Ev]. A causal window w sees "
    "the last w slots, a bidirectional one |distance| < w; 0 means none. softcap c maps a logit x to c*tanh(x/c). "
    "sinks [H] are extra logits with no value.",
    example="attention(%q, %k, %v) {causal = true, scale = 0.125}",
)  # fmt: skip
