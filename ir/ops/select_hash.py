"""Blocks by the buckets of a hash, and blocks drawn without looking (HyperAttention)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fretsaw.ir.op import Array, AttrSpec, ShapeError, elements, no_flops, sizes, tensor
from fretsaw.ir.ops.cache import OF_LENGTHS
from fretsaw.ir.ops.select import (
    GROUPS,
    Attrs,
    Types,
    arrays,
    blank,
    cache_of,
    check_cache,
    define_selector,
    mask,
    number,
)
from fretsaw.ir.ops.select_scores import _check_pools, over_heads, query_heads

MOST_PLANES = 20
MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # SplitMix64's constants


def buckets(x: Array, planes: Array) -> Array:
    """Rank of the signs of x [..., E] on planes [E, P] in the Gray code: neighbours differ in one sign."""
    signs = (x.astype(np.float64) @ planes.astype(np.float64) > 0).astype(np.int64)
    rank = np.zeros(signs.shape[:-1], np.int64)
    bit = np.zeros_like(rank)
    for p in range(signs.shape[-1]):
        bit = bit ^ signs[..., p]
        rank = 2 * rank + bit
    return rank


def _hash_scores(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (qp, kp, planes) = cache_of(operands), arrays(operands)
    own, there = buckets(qp, planes), buckets(kp, planes)
    out = blank(kv, qp.shape[1], fill=-np.inf)
    for block in kv.query_blocks():
        n = block.block + 1
        for h in range(qp.shape[1]):
            far = there[block.sequence, h * kp.shape[1] // qp.shape[1], :n] - own[block.row, h]
            out[block.row, h, :n] = -np.abs(far)
    return [out]


def _hash_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    heads, size, planes = query_heads(types[1], "qp"), tensor(types[1], "qp").shape[2], tensor(types[3], "planes")
    _check_pools(types, "kp", heads, size)
    if planes.rank != 2 or planes.shape[0] != size or not isinstance(planes.shape[1], int):
        raise ShapeError(f"needs planes [{size}, P], got {planes}", "planes")
    if not 0 < planes.shape[1] <= MOST_PLANES:
        raise ShapeError(f"1 to {MOST_PLANES} planes, got {planes.shape[1]}", "planes")
    return over_heads(heads)


def mixed(*numbers: Array | int) -> Array:
    """Pseudo-random u64 of integers (broadcast), each mixed in with the rounds of SplitMix64."""
    state = np.asarray(0, np.uint64)
    with np.errstate(over="ignore"):
        for n in numbers:
            state = (state ^ np.asarray(n).astype(np.uint64)) * np.uint64(MIX[0]) + np.uint64(MIX[0])
            state = (state ^ (state >> np.uint64(30))) * np.uint64(MIX[1])
            state = (state ^ (state >> np.uint64(27))) * np.uint64(MIX[2])
            state = state ^ (state >> np.uint64(31))
    return state


def _sampled(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, count = cache_of(operands), number(attrs, "count")
    out = blank(kv, number(attrs, "groups"))
    for block in kv.query_blocks():
        for g in range(out.shape[1]):
            drawn = mixed(number(attrs, "seed"), g, block.block, np.arange(block.block + 1))
            out[block.row, g, np.argsort(drawn, kind="stable")[:count]] = True
    return [out]


def _sampled_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    number(attrs, "seed"), number(attrs, "count")
    return mask(number(attrs, "groups", 1))


def _hash_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    planes = sizes(operands[3])[1]
    return 2 * planes * (elements(operands[1]) + elements(operands[2])) + 2 * elements(results[0])


define_selector(
    "hash_scores", "kv qp kp planes", shape=_hash_shape, reference=_hash_scores, reads=OF_LENGTHS, flops=_hash_flops,
    doc="How near the buckets of pooled queries qp f32[QB, H, E] and pooled keys kp f32[B, K, KB, E] lie: minus the "
    "difference of the ranks, in the Gray code, of their signs on planes [E, P] -> f32[QB, H, KB], after the row's own "
    "block -inf.",
    example="hash_scores(%kv, %qp, %kp, %planes)",
)  # fmt: skip
define_selector(
    "sampled_blocks", "kv", shape=_sampled_shape, reference=_sampled, reads=OF_LENGTHS, flops=no_flops,
    attrs={**GROUPS, "count": AttrSpec(int, required=True), "seed": AttrSpec(int, 0)},
    doc="The mask of count visible blocks per row and group, drawn by a hash of seed, group, row's block and block -> "
    "bool[QB, G, KB]; all where no more are visible.",
    example="sampled_blocks(%kv) {count = 4, groups = 9, seed = 1}",
)  # fmt: skip
