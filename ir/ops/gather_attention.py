"""Sparse attention over listed tokens, and the sum of two attentions over different keys.

``ids i32[QB, G, N]`` holds, for each query block (rows as ir/kv.py says) and each of G groups of heads, the positions
of the keys that it reads: the first ``cnt i32[QB, G]`` entries, strictly ascending; the rest is ignored. What is listed
here and what ``block_attention`` lists must not overlap where the two are merged.

With ``distance`` every listed key is read as if it stood that many slots before the query, whatever lies between:
queries are turned by ``distance`` less their own slot and keys by their slot back, in the rotary embedding that both
went through (InfLLM, arXiv:2402.04617). Positions are slots then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fretsaw.ir.kv import ReferenceKvCache
from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, no_flops, sizes, tensor
from fretsaw.ir.ops.block_attention import check_lists, head_groups, softmax_mix
from fretsaw.ir.ops.cache import KV_CACHE, LAYER, is_cache
from fretsaw.ir.ops.rope import rotate
from fretsaw.ir.types import TensorType, ValueType

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]

ATTRS = {
    **LAYER,
    "scale": AttrSpec(float, required=True),
    "value_size": AttrSpec(int, required=True),
    "softcap": AttrSpec(float, 0.0),
    "distance": AttrSpec(int, 0),
    "layout": AttrSpec(str, "half", choices=("half", "interleaved")),
    "decode": AttrSpec(bool, False),
    "whole_prompt": AttrSpec(bool, False),
    "method": AttrSpec(str, ""),
}


def _gather_shape(types: Types, attrs: Attrs) -> Types:
    if not is_cache(types[0]):
        raise ShapeError(f"kv must be {KV_CACHE}, is {types[0]}", "kv")
    q, ids, cnt = (tensor(t, s) for t, s in zip(types[1:4], ("q", "ids", "cnt"), strict=True))
    size = attrs["value_size"]
    if q.rank != 3 or not isinstance(size, int):
        raise ShapeError(f"needs q [T, H, E], got {q}", "q")
    check_lists(q, ids, cnt, None)
    distance = attrs.get("distance", 0)
    if not isinstance(distance, int) or distance < 0 or bool(distance) != (len(types) > 4):
        raise ShapeError(f"distance, 0 or more, goes with inv_freq, is {distance}", attr="distance")
    if distance and types[4] != TensorType("f32", (half_of(q),)):
        raise ShapeError(f"inv_freq {types[4]} does not turn all of {q}", "inv_freq")
    return [TensorType(q.dtype, (q.shape[0], q.shape[1], size)), TensorType("f32", q.shape[:2])]


def half_of(q: TensorType) -> int:
    """Pairs of a head of q [T, H, E] that turn."""
    size = q.shape[2]
    if not isinstance(size, int) or size % 2:
        raise ShapeError(f"needs an even head to turn, got {q}", "q")
    return size // 2


def turned(x: Array, slots: Array, freq: Array, layout: str) -> Array:
    """x [n, E] turned by slots [n], in its own dtype; angles in f64."""
    angle = slots.astype(np.float64)[:, None] * freq.astype(np.float64)
    out: Array = rotate(x, np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype), layout)
    return out


def _gather(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, q, ids, cnt, *rest = operands
    distance, layout = int(str(attrs.get("distance", 0))), str(attrs.get("layout", "half"))
    assert isinstance(kv, ReferenceKvCache)
    assert isinstance(q, np.ndarray) and isinstance(ids, np.ndarray) and isinstance(cnt, np.ndarray)
    heads = q.shape[1]
    out = np.zeros((*q.shape[:2], int(attrs["value_size"])), q.dtype)  # type: ignore[arg-type]
    lse = np.full(q.shape[:2], -np.inf, np.float32)
    for block in kv.query_blocks():
        if block.single and not attrs.get("decode"):
            continue
        k, v = kv.read(int(attrs["layer"]), block.sequence)  # type: ignore[arg-type]
        for h, g in enumerate(head_groups(heads, ids.shape[1])):
            listed = ids[block.row, g, : cnt[block.row, g]]
            listed = listed[(listed >= 0) & (listed < block.end)]
            mine = h * k.shape[1] // heads
            seen = listed[None, :] <= block.positions[:, None]
            rows, keys = q[block.tokens, h], k[listed, mine]
            if distance:
                freq = np.asarray(rest[0])
                rows = turned(rows, distance - block.positions, freq, layout)
                keys = turned(keys, -listed.astype(np.int64), freq, layout)
            out[block.tokens, h], lse[block.tokens, h] = softmax_mix(rows, keys, v[listed, mine], seen, None, attrs)
    return [out, lse]


def _gather_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """As if every list were full."""
    count, heads, size = sizes(operands[1])
    return heads * (2 * (size + sizes(results[0])[-1]) + 5) * count * sizes(operands[2])[-1]


define_op(
    "gather_attention", "kv q ids cnt inv_freq?", shape=_gather_shape, reference=_gather, attrs=ATTRS, effects=("kv",),
    flops=_gather_flops,
    doc="Attention of this step's queries q [T, H, E] over listed tokens of the cache -> [T, H, Ev], and the natural "
    "logarithm of each row's sum, f32[T, H]. Lists: positions ids i32[QB, G, N] of which cnt i32[QB, G] count, "
    "ascending; a query sees those up to its own. A sequence with one token in the step sees nothing unless decode is "
    "set: attention over blocks, which this is merged with, then sees everything. distance: listed keys are read as if "
    "that far before the query, q and keys having been turned by inv_freq [E/2] in layout. whole_prompt and method as "
    "there.",
    example="gather_attention(%kv, %q, %ids, %cnt) {layer = 0, scale = 0.125, value_size = 64}",
)  # fmt: skip


def _merge_shape(types: Types, attrs: Attrs) -> Types:
    o1, lse1, o2, lse2 = (tensor(t, s) for t, s in zip(types, ("o1", "lse1", "o2", "lse2"), strict=True))
    if o1.rank != 3 or o1 != o2:
        raise ShapeError(f"needs two results [T, H, Ev] of one type, got {o1} and {o2}", "o2")
    for slot, lse in (("lse1", lse1), ("lse2", lse2)):
        if lse != TensorType("f32", o1.shape[:2]):
            raise ShapeError(f"needs f32[T, H] beside {o1}, got {lse}", slot)
    return [o1, lse1] if attrs.get("lse") else [o1]


def _merge(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    o1, lse1, o2, lse2 = (np.asarray(x) for x in operands)
    total = np.logaddexp(lse1.astype(np.float64), lse2.astype(np.float64))
    base = np.where(np.isneginf(total), 0, total)
    out = sum(o * np.exp(lse - base)[..., None] for o, lse in ((o1, lse1), (o2, lse2)))
    merged = np.asarray(out).astype(o1.dtype)
    return [merged, total.astype(np.float32)] if attrs.get("lse") else [merged]


define_op(
    "merge_attention", "o1 lse1 o2 lse2", shape=_merge_shape, reference=_merge, flops=no_flops,
    attrs={"lse": AttrSpec(bool, False)},
    doc="Two attentions of the same queries over keys that do not overlap, o [T, H, Ev] with the natural logarithms of "
    "their sums lse f32[T, H] -> attention over all of the keys, and with lse its logarithms. Where one side saw "
    "nothing (-inf) the result is the other.",
    example="merge_attention(%o1, %lse1, %o2, %lse2)",
)  # fmt: skip
