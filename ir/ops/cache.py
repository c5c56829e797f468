"""Packed attention over a KV cache: tokens of all sequences of a step lie one after another, [T, ...]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fretsaw.ir.kv import ReferenceKvCache
from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, no_flops, sizes, tensor
from fretsaw.ir.ops.attention import ATTENTION_ATTRS, attend, attention_flops
from fretsaw.ir.types import HandleType, TensorType, ValueType

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]
LAYER = {"layer": AttrSpec(int, required=True)}
KV_CACHE = HandleType("kv_cache")


def is_cache(t: ValueType | None) -> bool:
    """Whether ``t`` is a KV cache, in whatever format it keeps its numbers."""
    return isinstance(t, HandleType) and t.kind == KV_CACHE.kind


def _needs_cache(t: ValueType) -> None:
    if not is_cache(t):
        raise ShapeError(f"kv must be {KV_CACHE}, is {t}", "kv")


def _append_shape(types: Types, attrs: Attrs) -> Types:
    _needs_cache(types[0])
    k, v = tensor(types[1], "k"), tensor(types[2], "v")
    if k.rank != 3 or k.shape[:-1] != v.shape[:-1]:
        raise ShapeError(f"needs k [T, K, E] and v [T, K, Ev], got {k} and {v}", "k")
    return []


def _append(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, k, v = operands
    assert isinstance(kv, ReferenceKvCache) and isinstance(k, np.ndarray) and isinstance(v, np.ndarray)
    kv.append(int(attrs["layer"]), k, v)  # type: ignore[arg-type]
    return []


define_op(
    "kv_append", "kv k v", flops=no_flops, shape=_append_shape, reference=_append, attrs=LAYER, effects=("kv",),
    doc="Append this step's keys and values to a layer's cache, each token to its own sequence.",
    example="kv_append(%kv, %k, %v) {layer = 0}",
)  # fmt: skip


def _attention_shape(types: Types, attrs: Attrs) -> Types:
    _needs_cache(types[0])
    q = tensor(types[1], "q")
    size = attrs["value_size"]
    if q.rank != 3 or not isinstance(size, int):
        raise ShapeError(f"needs q [T, H, E], got {q}", "q")
    return [TensorType(q.dtype, (q.shape[0], q.shape[1], size))]


def _attention(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, q, *rest = operands
    assert isinstance(kv, ReferenceKvCache) and isinstance(q, np.ndarray)
    sinks = rest[0] if rest else None
    assert sinks is None or isinstance(sinks, np.ndarray)
    out = np.zeros((*q.shape[:2], int(attrs["value_size"])), q.dtype)  # type: ignore[arg-type]
    for rows, seq in kv.segments():
        k, v = kv.read(int(attrs["layer"]), seq)  # type: ignore[arg-type]
        count = rows.stop - rows.start
        slots = np.arange(k.shape[0] - count, k.shape[0])
        out[rows] = attend(q[rows], k, v, sinks, slots, attrs)
    return [out]


def _attention_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """Of a step whose tokens are one sequence from its start, as the cache's fill is not in the types."""
    count, heads, size = sizes(operands[1])
    return attention_flops(heads, count, count, size + sizes(results[0])[-1], attrs)


define_op(
    "cached_attention", "kv q sinks?", shape=_attention_shape, reference=_attention, effects=("kv",),
    flops=_attention_flops,
    attrs={**ATTENTION_ATTRS, **LAYER, "value_size": AttrSpec(int, required=True)},
    doc="Attention of this step's queries q [T, H, E] over their sequences' cached keys and values, this step's "
    "included -> [T, H, Ev]. Attributes as in attention.",
    example="cached_attention(%kv, %q) {layer = 0, scale = 0.125, value_size = 64}",
)  # fmt: skip
