"""Pools of queries and keys through learned projections, turned by their blocks' positions (SeerAttention).

The pools belong to a learned gate: products of both, put through a softmax, guess the attention mass of blocks. They
are made of queries and keys before their rotary embedding, which the cache does not hold: keys are those of the step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fretsaw.ir.kv import BLOCK
from fretsaw.ir.op import Array, AttrSpec, ShapeError, define_op, elements, sizes, tensor
from fretsaw.ir.ops.rope import rotate
from fretsaw.ir.ops.select import KB, QB, Attrs, B, Types, arrays, cache_of, check_cache
from fretsaw.ir.ops.select_scores import query_heads
from fretsaw.ir.types import TensorType

_LAYOUT = {"layout": AttrSpec(str, "half", choices=("half", "interleaved"))}
POOLS = 3  # largest, smallest and mean key, in this order


def _turned(x: Array, block: int, freq: Array, attrs: Attrs) -> Array:
    """x [H, G] at the position where its block begins."""
    angle = block * BLOCK * freq.astype(np.float64)
    return rotate(x, np.cos(angle), np.sin(angle), str(attrs["layout"]))


def _gate_queries(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (q, freq, *rest) = cache_of(operands), arrays(operands)
    wide = rest[0].shape[2] if rest else q.shape[2]
    out = np.zeros((kv.dims["QB"], q.shape[1], wide), np.float32)
    for block in kv.query_blocks():
        mean = q[block.tokens].astype(np.float64).mean(axis=0)  # [H, E]
        found = np.einsum("he,heg->hg", mean, rest[0].astype(np.float64)) if rest else mean
        out[block.row] = _turned(found, block.block, freq, attrs)
    return [out]


def _gate_keys(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (k, weight, freq) = cache_of(operands), arrays(operands)
    heads, dims = weight.shape[0], kv.dims
    out = np.zeros((dims["B"], heads, dims["KB"], weight.shape[2]), np.float32)
    for block in kv.query_blocks():
        keys = k[block.tokens].astype(np.float64)  # [n, K, E]
        pools = np.concatenate([keys.max(axis=0), keys.min(axis=0), keys.mean(axis=0)], axis=1)  # [K, 3 E]
        pools = np.repeat(pools, heads // k.shape[1], axis=0)
        found = np.einsum("hi,hig->hg", pools, weight.astype(np.float64))
        out[block.sequence, :, block.block] = _turned(found, block.block, freq, attrs)
    return [out]


def _gate_size(types: Types, at: int, size: object) -> int:
    freq = tensor(types[at], "inv_freq")
    if freq.rank != 1 or not isinstance(size, int) or not isinstance(freq.shape[0], int) or 2 * freq.shape[0] != size:
        raise ShapeError(f"inv_freq {freq} does not turn {size} features", "inv_freq")
    return size


def _queries_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    heads, size = query_heads(types[1]), tensor(types[1], "q").shape[2]
    if len(types) > 3:
        weight = tensor(types[3], "weight")
        if weight.rank != 3 or weight.shape[:2] != (heads, size):
            raise ShapeError(f"needs weight [{heads}, {size}, G], got {weight}", "weight")
        size = weight.shape[2]
    return [TensorType("f32", (QB, heads, _gate_size(types, 2, size)))]


def _keys_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    heads, weight = query_heads(types[1], "k"), tensor(types[2], "weight")
    size = tensor(types[1], "k").shape[2]
    if weight.rank != 3 or not isinstance(weight.shape[0], int) or weight.shape[0] % heads or not weight.shape[0]:
        raise ShapeError(f"needs weight [H, {POOLS}*E, G] for keys of {heads} heads, got {weight}", "weight")
    if not isinstance(size, int) or weight.shape[1] != POOLS * size:
        raise ShapeError(f"needs weight [H, {POOLS} * {size}, G], got {weight}", "weight")
    return [TensorType("f32", (B, weight.shape[0], KB, _gate_size(types, 3, weight.shape[2])))]


define_op(
    "gate_queries", "kv q inv_freq weight?", shape=_queries_shape, reference=_gate_queries, effects=("kv",),
    flops=lambda operands, results, attrs: elements(operands[1]) + 2 * elements(results[0]) * sizes(operands[1])[2],
    attrs=_LAYOUT,
    doc="Per query block the mean of its rows of q [T, H, E] in this step, times weight [H, E, G] of its head, turned "
    "by the block's first position times inv_freq [G/2] -> f32[QB, H, G]; without a weight G is E.",
    example="gate_queries(%kv, %q, %freq, %w)",
)  # fmt: skip
define_op(
    "gate_keys", "kv k weight inv_freq", shape=_keys_shape, reference=_gate_keys, effects=("kv",),
    flops=lambda operands, results, attrs: 3 * elements(operands[1]) + 2 * elements(results[0]) * sizes(operands[2])[1],
    attrs=_LAYOUT,
    doc="Per key block of this step the largest, the smallest and the mean of its rows of k [T, K, E], side by side, "
    "times weight [H, 3E, G], turned as in gate_queries -> f32[B, H, KB, G]; H a multiple of K; 0 for blocks of "
    "earlier steps.",
    example="gate_keys(%kv, %k, %w, %freq)",
)  # fmt: skip
