"""Packed attention over a KV cache: tokens of all sequences of a step lie one after another, [T, ...]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fretsaw.ir.attrs import int_of
from fretsaw.ir.cache_policy import WindowPolicy
from fretsaw.ir.kv import BLOCK, ReferenceKvCache
from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, no_flops, sizes, tensor
from fretsaw.ir.ops.attention import ATTENTION_ATTRS, attend, attention_flops, attention_scratch
from fretsaw.ir.traits import Access, Legal
from fretsaw.ir.types import HandleType, TensorType, ValueType

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]
LAYER = {"layer": AttrSpec(int, required=True)}
KV_CACHE = HandleType("kv_cache")
OF_LAYER = (Access("kv", "layer", by="layer"),)  # keys and values of one layer
# How many tokens each sequence has, before a step and in it, which no node changes.
OF_LENGTHS = (Access("kv", "lengths"),)
IN_CACHE = Legal("packed", why="the cache exists only after packing")


def _needs_cache(t: ValueType) -> None:
    if t != KV_CACHE:
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
    kv.append(int_of(attrs, "layer"), k, v)
    return []


define_op(
    "kv_append", "kv k v", flops=no_flops, shape=_append_shape, reference=_append, attrs=LAYER, writes=OF_LAYER,
    legal=IN_CACHE, kind="attention",
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
    out = np.zeros((*q.shape[:2], int_of(attrs, "value_size")), q.dtype)
    for rows, seq in kv.segments():
        for piece, k, v in kv.pieces(int_of(attrs, "layer"), seq):
            slots = np.arange(k.shape[0] - (piece.stop - piece.start), k.shape[0])
            out[rows][piece] = attend(q[rows][piece], k, v, sinks, slots, attrs)
    return [out]


def _attention_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """Of a step whose tokens are one sequence from its start, as the cache's fill is not in the types."""
    count, heads, size = sizes(operands[1])
    return attention_flops(heads, count, count, size + sizes(results[0])[-1], attrs)


def cached_scratch(operands: Types, results: Types, attrs: Attrs, item: int) -> int:
    """Of a step whose tokens are one sequence from its start, as in ``flops``; all heads may share their keys."""
    count, heads, _ = sizes(operands[1])
    return attention_scratch(count, count, heads, attrs, item)


define_op(
    "cached_attention", "kv q sinks?", shape=_attention_shape, reference=_attention, reads=OF_LAYER,
    flops=_attention_flops, scratch=cached_scratch, legal=IN_CACHE, kind="attention",
    attrs={**ATTENTION_ATTRS, **LAYER, "value_size": AttrSpec(int, required=True)},
    doc="Attention of this step's queries q [T, H, E] over their sequences' cached keys and values, this step's "
    "included -> [T, H, Ev]. Attributes as in attention.",
    example="cached_attention(%kv, %q) {layer = 0, scale = 0.125, value_size = 64}",
)  # fmt: skip


def _window_shape(types: Types, attrs: Attrs) -> Types:
    _needs_cache(types[0])
    for name, least in (("sinks", 0), ("window", 1), ("page", 1)):
        value = attrs[name]
        if not isinstance(value, int) or value < least:
            raise ShapeError(f"{name} must be {least} or more, is {value}", attr=name)
    return []


def _keep_window(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    (kv,) = operands
    assert isinstance(kv, ReferenceKvCache)
    layer, *window = (int(attrs[name]) for name in ("layer", "sinks", "window", "page"))  # type: ignore[arg-type]
    kv.policies[layer] = WindowPolicy(*window)
    return []


define_op(
    "keep_window", "kv", shape=_window_shape, reference=_keep_window, writes=OF_LAYER, legal=IN_CACHE, flops=no_flops,
    attrs={**LAYER, "sinks": AttrSpec(int, required=True), "window": AttrSpec(int, required=True),
           "page": AttrSpec(int, BLOCK)},
    doc="Rows of a layer's cache hold pages with one of their sequence's first sinks tokens or of its last window "
    "ones; the others are dropped after a step. Stands before what reads the cache.",
    example="keep_window(%kv) {layer = 0, sinks = 4, window = 128}",
)  # fmt: skip
