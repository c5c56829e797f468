"""Scaled dot-product attention over one padded batch, token-major heads: q [B, S, H, E]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, tensor
from fretsaw.ir.types import TensorType, ValueType

ATTENTION_ATTRS = {
    "causal": AttrSpec(bool, True),
    "window": AttrSpec(int, 0),
    "scale": AttrSpec(float, required=True),
    "softcap": AttrSpec(float, 0.0),
}


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
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    s = np.einsum("she,the->hst", q, k) * q.dtype.type(attrs["scale"])
    cap, window = attrs.get("softcap", 0.0), attrs.get("window", 0)
    assert isinstance(cap, (int, float)) and isinstance(window, int)
    if cap:
        s = np.tanh(s / q.dtype.type(cap)) * q.dtype.type(cap)
    gap = q_pos[:, None] - np.arange(k.shape[0])[None, :]  # how far back the key is
    seen = np.ones(gap.shape, bool)
    if attrs.get("causal", True):
        seen &= gap >= 0
    if window:
        seen &= gap < window if attrs.get("causal", True) else np.abs(gap) < window
    s = np.where(seen, s, -np.inf)
    if sinks is not None:  # a logit per head that takes mass and gives nothing
        s = np.concatenate([s, np.broadcast_to(sinks[:, None, None], (*s.shape[:2], 1))], axis=-1)
    top = s.max(axis=-1, keepdims=True)
    e = np.exp(s - np.where(np.isneginf(top), 0, top))
    total = e.sum(axis=-1, keepdims=True)
    p = (e / np.where(total == 0, 1, total))[..., : k.shape[0]]
    out: Array = np.einsum("hst,the->she", p, v).astype(q.dtype)
    return out


def _attention(arrays: Sequence[Array], attrs: Mapping[str, Attr]) -> Sequence[Array]:
    q, k, v = arrays[:3]
    sinks = arrays[3] if len(arrays) > 3 else None
    pos = np.arange(q.shape[1]) + (k.shape[1] - q.shape[1])
    return [np.stack([attend(q[b], k[b], v[b], sinks, pos, attrs) for b in range(q.shape[0])])]


define_op(
    "attention", "q k v sinks?", shape=_attention_shape, reference=_attention, attrs=ATTENTION_ATTRS,
    doc="Softmax attention, q [B, S, H, E], k [B, S, K, E], v [B, S, K, Ev] -> [B, S, H, Ev]. A causal window w sees "
    "the last w slots, a bidirectional one |distance| < w; 0 means none. softcap c maps a logit x to c*tanh(x/c). "
    "sinks [H] are extra logits with no value.",
    example="attention(%q, %k, %v) {causal = true, scale = 0.125}",
)  # fmt: skip
