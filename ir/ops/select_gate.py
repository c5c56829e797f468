"""Pools of queries and keys through learned projections, turned by their blocks' positions (SeerAttention).

The pools belong to a learned gate: products of both, put through a softmax, guess the attention mass of blocks. The
gate was made for queries and keys before their rotary embedding; attention and cache hold them after it, so they are
turned back by their positions first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fretsaw.ir.kv import BLOCK
from fretsaw.ir.op import Array, AttrSpec, ShapeError, elements, sizes, tensor
from fretsaw.ir.ops.cache import OF_LAYER, OF_LENGTHS
from fretsaw.ir.ops.rope import rotate
from fretsaw.ir.ops.select import KB, QB, Attrs, B, Types, arrays, cache_of, check_cache, define_selector, number
from fretsaw.ir.ops.select_scores import DECODE, KEYS, keys_of, query_heads, real, scored
from fretsaw.ir.types import TensorType

_ROPE = {"layout": AttrSpec(str, "half", choices=("half", "interleaved")), "rope_scale": AttrSpec(float, 1.0)}
POOLS = 3  # largest, smallest and mean key, in this order


def _turned(x: Array, positions: Array, freq: Array, attrs: Attrs) -> Array:
    """x [n, H, G] turned by positions [n], as rope does."""
    angle = positions[:, None] * freq.astype(np.float64)
    scale = real(attrs, "rope_scale")
    return rotate(x, np.cos(angle)[:, None] * scale, np.sin(angle)[:, None] * scale, str(attrs["layout"]))


def _turned_back(x: Array, positions: Array, freq: Array, attrs: Attrs) -> Array:
    """The inverse: a turn by as much in the other direction, by one over the scale."""
    undo = {**attrs, "rope_scale": 1 / real(attrs, "rope_scale")}
    return _turned(x.astype(np.float64), -positions, freq, undo)


def _gate_queries(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (q, freq, *rest) = cache_of(operands), arrays(operands)
    wide = rest[0].shape[2] if rest else q.shape[2]
    out = np.zeros((kv.dims["QB"], q.shape[1], wide), np.float32)
    for block in kv.query_blocks():
        mean = _turned_back(q[block.tokens], block.positions, freq, attrs).mean(axis=0)  # [H, E]
        found = np.einsum("he,heg->hg", mean, rest[0].astype(np.float64)) if rest else mean
        out[block.row] = _turned(found[None], np.array([block.block * BLOCK]), freq, attrs)[0]
    return [out]


def _gate_keys(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (weight, freq) = cache_of(operands), arrays(operands)
    heads, dims = weight.shape[0], kv.dims
    out = np.zeros((dims["B"], heads, dims["KB"], weight.shape[2]), np.float32)
    for sequence in {b.sequence for b in scored(kv, attrs)}:
        keys = keys_of(kv, attrs, sequence)
        keys = _turned_back(keys, np.arange(len(keys)), freq, attrs)
        for j in range(0, len(keys), BLOCK):
            part = keys[j : j + BLOCK]  # [n, K, E]
            pools = np.concatenate([part.max(axis=0), part.min(axis=0), part.mean(axis=0)], axis=1)  # [K, 3 E]
            pools = np.repeat(pools, heads // keys.shape[1], axis=0)
            found = np.einsum("hi,hig->hg", pools, weight.astype(np.float64))
            out[sequence, :, j // BLOCK] = _turned(found[None], np.array([j]), freq, attrs)[0]
    return [out]


def _gate_size(types: Types, at: int, size: object) -> int:
    freq = tensor(types[at], "inv_freq")
    if freq.rank != 1 or not isinstance(size, int) or not isinstance(freq.shape[0], int) or 2 * freq.shape[0] != size:
        raise ShapeError(f"inv_freq {freq} does not turn {size} features", "inv_freq")
    return size


def _check_scale(attrs: Attrs) -> None:
    if not real(attrs, "rope_scale") > 0:
        raise ShapeError(f"rope_scale must be above 0, is {attrs['rope_scale']}", attr="rope_scale")


def _queries_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    _check_scale(attrs)
    heads, size = query_heads(types[1]), _gate_size(types, 2, tensor(types[1], "q").shape[2])
    if len(types) > 3:
        weight = tensor(types[3], "weight")
        if weight.shape != (heads, size, size):
            raise ShapeError(f"needs weight [{heads}, {size}, {size}], got {weight}", "weight")
    return [TensorType("f32", (QB, heads, size))]


def _keys_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    _check_scale(attrs)
    weight, groups = tensor(types[1], "weight"), number(attrs, "kv_heads", 1)
    heads = weight.shape[0] if weight.rank == 3 else 0
    if not isinstance(heads, int) or not heads or heads % groups:
        raise ShapeError(f"needs weight [H, {POOLS}*E, E] for keys of {groups} heads, got {weight}", "weight")
    size = _gate_size(types, 2, weight.shape[2])
    if weight.shape[1] != POOLS * size:
        raise ShapeError(f"needs weight [H, {POOLS} * {size}, {size}], got {weight}", "weight")
    return [TensorType("f32", (B, heads, KB, size))]


def _keys_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """Six operations turn a pair, three pool an element; then the products."""
    keys = elements(results[0]) * BLOCK
    return 6 * keys + 2 * elements(results[0]) * sizes(operands[1])[1]


define_selector(
    "gate_queries", "kv q inv_freq weight?", shape=_queries_shape, reference=_gate_queries, reads=OF_LENGTHS,
    flops=lambda operands, results, attrs: 4 * elements(operands[1]) + 2 * elements(results[0]) * sizes(operands[1])[2],
    attrs=_ROPE,
    doc="Per query block the mean of its rows of q [T, H, E] in this step, turned back by their positions times "
    "inv_freq [E/2], times weight [H, E, E] of its head if there is one, turned by the block's first position -> "
    "f32[QB, H, E]. rope_scale is what the rotary embedding multiplies by.",
    example="gate_queries(%kv, %q, %freq, %w)",
)  # fmt: skip
define_selector(
    "gate_keys", "kv weight inv_freq", shape=_keys_shape, reference=_gate_keys, reads=OF_LAYER, flops=_keys_flops,
    attrs={**KEYS, **_ROPE, **DECODE},
    doc="Per key block the largest, the smallest and the mean of a layer's cached keys, turned back by their "
    "positions, side by side, times weight [H, 3E, E], turned by the block's first position -> f32[B, H, KB, E]; H a "
    "multiple of kv_heads; 0 where there are none, and for sequences with one token in the step unless decode is set.",
    example="gate_keys(%kv, %w, %freq) {kv_heads = 3, layer = 0}",
)  # fmt: skip
