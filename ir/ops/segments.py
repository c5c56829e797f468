"""Packed sequences: rows [T, ...] of all of them one after another, sequence b at ``cu[b] .. cu[b + 1]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fretsaw.ir.attrs import str_of
from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, per_operand, sizes, tensor
from fretsaw.ir.ops.attention import ATTENTION_ATTRS, attend, attention_flops, attention_scratch, check_heads
from fretsaw.ir.traits import Legal
from fretsaw.ir.types import FLOATS, INTS, TensorType, ValueType

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]
IN_SEGMENTS = Legal("packed", why="segments exist only after packing")
POOLINGS = ("first", "last", "mean", "max", "mean_sqrt")
KIND = {"kind": AttrSpec(str, required=True, choices=POOLINGS)}


def segments(cu: Array, rows: int) -> Iterator[slice]:
    """Rows of each sequence.

    Raises:
        ValueError: the offsets do not rise from 0 to the number of rows.
    """
    ends = [int(c) for c in cu]
    if not ends or ends[0] != 0 or ends[-1] != rows or any(a > b for a, b in zip(ends, ends[1:], strict=False)):
        raise ValueError(f"offsets of sequences must rise from 0 to {rows}, are {ends}")
    return (slice(a, b) for a, b in zip(ends, ends[1:], strict=False))


def _offsets(value: ValueType) -> TensorType:
    cu = tensor(value, "cu")
    if cu.dtype not in INTS or cu.rank != 1 or (isinstance(cu.shape[0], int) and cu.shape[0] < 1):
        raise ShapeError(f"cu must be offsets i32[B + 1], is {cu}", "cu")
    return cu


def _attention_shape(types: Types, attrs: Attrs) -> Types:
    q, k, v = (tensor(t, s) for t, s in zip(types, ("q", "k", "v"), strict=False))
    _offsets(types[3])
    if not q.rank == k.rank == v.rank == 3 or q.shape[0] != k.shape[0]:
        raise ShapeError(f"needs q, k, v of rank 3 with the same rows, got {q}, {k}, {v}", "q")
    check_heads(q, k, v)
    return [TensorType(q.dtype, (*q.shape[:2], v.shape[2]))]


def _attention(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    q, k, v, cu, *rest = arrays
    out = np.zeros((*q.shape[:2], v.shape[2]), q.dtype)
    for rows in segments(cu, q.shape[0]):
        if rows.stop > rows.start:
            slots = np.arange(rows.stop - rows.start)
            out[rows] = attend(q[rows], k[rows], v[rows], rest[0] if rest else None, slots, attrs)
    return [out]


def _attention_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """Of rows that are all one sequence, as the offsets are not in the types."""
    count, heads, size = sizes(operands[0])
    return attention_flops(heads, count, count, size + sizes(results[0])[-1], attrs)


def _attention_scratch(operands: Types, results: Types, attrs: Attrs, item: int) -> int:
    (count, heads, _), (_, shared, _) = sizes(operands[0]), sizes(operands[1])
    return attention_scratch(count, count, heads // shared, attrs, item)


define_op(
    "segment_attention", "q k v cu sinks?", shape=_attention_shape, reference=_attention, attrs=ATTENTION_ATTRS,
    flops=_attention_flops, scratch=_attention_scratch, legal=IN_SEGMENTS, kind="attention",
    doc="Attention of packed sequences, q [T, H, E], k [T, K, E], v [T, K, Ev], offsets cu i32[B+1] -> [T, H, Ev]. A "
    "token sees its own sequence alone. Attributes as in attention.",
    example="segment_attention(%q, %k, %v, %cu) {causal = false, scale = 0.125}",
)  # fmt: skip


def pool_rows(x: Array, kind: str) -> Array:
    """One sequence x [S, D] -> [D]; zeros when it has no tokens."""
    if x.shape[0] == 0:
        return np.zeros(x.shape[1:], x.dtype)
    if kind in ("first", "last"):
        return np.asarray(x[0 if kind == "first" else -1])
    if kind == "max":
        return np.asarray(x.max(axis=0))
    count = x.dtype.type(x.shape[0])
    return np.asarray(x.sum(axis=0, dtype=x.dtype) / (count if kind == "mean" else np.sqrt(count)), x.dtype)


def _kind(attrs: Attrs) -> str:
    return str_of(attrs, "kind")


def _pool_shape(types: Types, attrs: Attrs) -> Types:
    x = tensor(types[0], "x")
    if x.rank != 3 or x.dtype not in FLOATS:
        raise ShapeError(f"needs floats [B, S, D], got {x}", "x")
    return [TensorType(x.dtype, (x.shape[0], x.shape[2]))]


define_op(
    "pool", "x", shape=_pool_shape, attrs=KIND, flops=per_operand(1),
    legal=Legal(last="fused", why="a packed program pools segments"),
    reference=lambda arrays, attrs: [
        np.stack([pool_rows(x, _kind(attrs)) for x in arrays[0]]) if arrays[0].shape[0] else arrays[0].sum(axis=1)
    ],
    doc="One row for each sequence of x [B, S, D] -> [B, D]: its first or last token, mean, maximum, or the sum over "
    "the square root of the length (mean_sqrt). Zeros when S is 0.",
    example='pool(%x) {kind = "mean"}',
)  # fmt: skip


def _segment_pool_shape(types: Types, attrs: Attrs) -> Types:
    x, cu = tensor(types[0], "x"), _offsets(types[1])
    if x.rank != 2 or x.dtype not in FLOATS:
        raise ShapeError(f"needs floats [T, D], got {x}", "x")
    return [TensorType(x.dtype, (cu.shape[0] - 1, x.shape[1]))]


def _segment_pool(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x, cu = arrays
    out = np.zeros((cu.shape[0] - 1, x.shape[1]), x.dtype)
    for b, rows in enumerate(segments(cu, x.shape[0])):
        out[b] = pool_rows(x[rows], _kind(attrs))
    return [out]


define_op(
    "segment_pool", "x cu", shape=_segment_pool_shape, reference=_segment_pool, attrs=KIND, flops=per_operand(1),
    legal=IN_SEGMENTS,
    doc="pool of packed sequences, x [T, D], offsets cu i32[B+1] -> [B, D]. Zeros for a sequence without tokens.",
    example='segment_pool(%x, %cu) {kind = "mean"}',
)  # fmt: skip


def _unit_shape(types: Types, attrs: Attrs) -> Types:
    x = tensor(types[0], "x")
    if x.rank < 1 or x.dtype not in FLOATS:
        raise ShapeError(f"needs a float tensor, got {x}", "x")
    return [x]


def _unit(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = arrays[0]
    norm = np.sqrt(np.sum(np.square(x), axis=-1, keepdims=True, dtype=x.dtype))
    return [x / np.maximum(norm, x.dtype.type(attrs["eps"]))]


define_op(
    "l2_norm", "x", shape=_unit_shape, reference=_unit, attrs={"eps": AttrSpec(float, 1e-12)}, flops=per_operand(3),
    kind="norm", rows="each",
    doc="x / max(|x|, eps), |x| the Euclidean length over the last axis.", example="l2_norm(%x)",
)  # fmt: skip
