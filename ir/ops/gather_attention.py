"""Sparse attention over listed tokens, and the sum of two attentions over different keys.

``ids i32[QB, G, N]`` holds, for each query block (rows as ir/kv.py says) and each of G groups of heads, the positions
of the keys that it reads: the first ``cnt i32[QB, G]`` entries, strictly ascending; the rest is ignored. What is listed
here and what ``block_attention`` lists must not overlap where the two are merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fretsaw.ir.kv import ReferenceKvCache
from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, no_flops, sizes, tensor
from fretsaw.ir.ops.block_attention import check_lists, head_groups, softmax_mix
from fretsaw.ir.ops.cache import KV_CACHE, LAYER
from fretsaw.ir.types import TensorType, ValueType

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]

ATTRS = {
    **LAYER,
    "scale": AttrSpec(float, required=True),
    "value_size": AttrSpec(int, required=True),
    "softcap": AttrSpec(float, 0.0),
    "decode": AttrSpec(bool, False),
    "whole_prompt": AttrSpec(bool, False),
    "method": AttrSpec(str, ""),
}


def _gather_shape(types: Types, attrs: Attrs) -> Types:
    if types[0] != KV_CACHE:
        raise ShapeError(f"kv must be {KV_CACHE}, is {types[0]}", "kv")
    q, ids, cnt = (tensor(t, s) for t, s in zip(types[1:], ("q", "ids", "cnt"), strict=True))
    size = attrs["value_size"]
    if q.rank != 3 or not isinstance(size, int):
        raise ShapeError(f"needs q [T, H, E], got {q}", "q")
    check_lists(q, ids, cnt, None)
    return [TensorType(q.dtype, (q.shape[0], q.shape[1], size)), TensorType("f32", q.shape[:2])]


def _gather(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, q, ids, cnt = operands
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
            out[block.tokens, h], lse[block.tokens, h] = softmax_mix(
                q[block.tokens, h], k[listed, mine], v[listed, mine], seen, None, attrs
            )
    return [out, lse]


def _gather_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """As if every list were full."""
    count, heads, size = sizes(operands[1])
    return heads * (2 * (size + sizes(results[0])[-1]) + 5) * count * sizes(operands[2])[-1]


define_op(
    "gather_attention", "kv q ids cnt", shape=_gather_shape, reference=_gather, attrs=ATTRS, effects=("kv",),
    flops=_gather_flops,
    doc="Attention of this step's queries q [T, H, E] over listed tokens of the cache -> [T, H, Ev], and the natural "
    "logarithm of each row's sum, f32[T, H]. Lists: positions ids i32[QB, G, N] of which cnt i32[QB, G] count, "
    "ascending; a query sees those up to its own. A sequence with one token in the step sees nothing unless decode is "
    "set: attention over blocks, which this is merged with, then sees everything. whole_prompt and method as there.",
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
