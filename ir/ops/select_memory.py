"""Keys that stand for blocks by what attention does to them (InfLLM, LongHeads), and blocks of earlier steps.

Attention of this step is needed for both, so blocks of earlier steps have no such key; ``earlier_blocks`` lists them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fretsaw.ir.kv import BLOCK
from fretsaw.ir.op import Array, AttrSpec, ShapeError, no_flops, sizes, tensor
from fretsaw.ir.ops.cache import OF_LAYER, OF_LENGTHS
from fretsaw.ir.ops.rope import rotate
from fretsaw.ir.ops.select import (
    GROUPS,
    KB,
    QB,
    Attrs,
    B,
    Types,
    arrays,
    blank,
    cache_of,
    check_cache,
    define_selector,
    mask,
    number,
    over_blocks,
)
from fretsaw.ir.ops.select_scores import DECODE, KEYS, SCALE, grouped_heads, keys_of, query_heads, real, scored
from fretsaw.ir.types import TensorType


def _earlier(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv = cache_of(operands)
    out = blank(kv, number(attrs, "groups"))
    starts: dict[int, int] = {}
    for block in kv.query_blocks():
        start = starts.setdefault(block.sequence, block.first)
        out[block.row, :, : min(-(-start // BLOCK), block.block + 1)] = True
    return [out]


def _earlier_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    return mask(number(attrs, "groups", 1))


def weights(rows: Array, keys: Array, scale: float) -> Array:
    """Softmax of rows [R, E] over keys [n, E], [R, n]."""
    logits = rows @ keys.T * scale
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    out: Array = e / e.sum(axis=1, keepdims=True)
    return out


def _representative(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (q,) = cache_of(operands), arrays(operands)
    dims, groups, near = kv.dims, number(attrs, "kv_heads"), number(attrs, "window")
    out = np.zeros((dims["B"], groups, dims["KB"], q.shape[2]), np.float32)
    taken = {b.sequence for b in scored(kv, attrs)}
    for tokens, sequence in kv.segments():
        if sequence not in taken:
            continue
        keys = keys_of(kv, attrs, sequence)
        received = np.zeros((len(keys), groups))
        start = len(keys) - (tokens.stop - tokens.start)
        for i, position in enumerate(range(start, len(keys))):
            low = max(0, position + 1 - near)
            for h in range(q.shape[1]):
                g = h * groups // q.shape[1]
                row = q[tokens.start + i, h].astype(np.float64)[None]
                mine = keys[low : position + 1, g]
                received[low : position + 1, g] += weights(row, mine, real(attrs, "scale"))[0]
        for j in range(start // BLOCK, -(-len(keys) // BLOCK)):
            part = slice(j * BLOCK, (j + 1) * BLOCK)
            for g in range(groups):
                best = np.argsort(-received[part, g], kind="stable")[: number(attrs, "count")]
                out[sequence, g, j] = keys[part, g][best].mean(axis=0)
    return [out]


def _representative_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    grouped_heads(types[1], attrs)
    number(attrs, "window", 1), number(attrs, "count", 1)
    return [TensorType("f32", (B, number(attrs, "kv_heads"), KB, tensor(types[1], "q").shape[2]))]


def _block_tokens(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (far, read) = cache_of(operands), arrays(operands)
    groups, blocks = far.shape[1:]
    ids, cnt = np.zeros((len(far), groups, blocks * BLOCK), np.int32), np.zeros(far.shape[:2], np.int32)
    for block in kv.query_blocks():
        last = min((block.block + 1) * BLOCK, block.end)
        for g in range(groups):
            own = np.flatnonzero(far[block.row, g] & ~read[block.row, g])
            tokens = (own[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
            tokens = tokens[tokens < last]
            ids[block.row, g, : tokens.size], cnt[block.row, g] = tokens, tokens.size
    return [ids, cnt]


def _block_tokens_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    groups = over_blocks(types[1], "far", "bool")
    if over_blocks(types[2], "mask", "bool") != groups:
        raise ShapeError(f"blocks {types[1]}, and of those that are read already {types[2]}", "mask")
    return [TensorType("i32", (QB, groups, KB * BLOCK)), TensorType("i32", (QB, groups))]


def _chunk_keys(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (q, k, v, freq) = cache_of(operands), arrays(operands)
    dims, heads = kv.dims, q.shape[1]
    out = np.zeros((dims["B"], heads, dims["KB"], q.shape[2]), np.float32)
    for block in kv.query_blocks():
        angle = (block.positions % BLOCK)[:, None] * freq.astype(np.float64)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        turned = [rotate(x[block.tokens].astype(np.float64), cos, sin, str(attrs["layout"])) for x in (q, k)]
        for h in range(heads):
            g, scale = h * k.shape[1] // heads, real(attrs, "scale")
            rows, keys = turned[0][:, h], turned[1][:, g]
            mixed = weights(rows, keys, scale) @ v[block.tokens, g].astype(np.float64)
            out[block.sequence, h, block.block] = (weights(mixed.mean(axis=0)[None], keys, scale) @ keys)[0]
    return [out]


def _chunk_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    q, k, v, freq = (tensor(t, s) for t, s in zip(types[1:], ("q", "k", "v", "inv_freq"), strict=True))
    heads, groups = query_heads(types[1]), query_heads(types[2], "k")
    if heads % groups or k != v or k.shape[2] != q.shape[2]:
        raise ShapeError(f"needs q [T, H, E] and k, v [T, K, E], got {q}, {k}, {v}", "k")
    if freq.rank != 1 or not isinstance(freq.shape[0], int) or 2 * freq.shape[0] != q.shape[2]:
        raise ShapeError(f"inv_freq {freq} does not turn {q.shape[2]} features", "inv_freq")
    return [TensorType("f32", (B, heads, KB, q.shape[2]))]


def _near_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    count, heads, size = sizes(operands[1])
    return heads * count * min(count, number(attrs, "window")) * (2 * size + 6)


def _chunk_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    count, heads, size = sizes(operands[1])
    return heads * count * BLOCK * (4 * size + 6)


define_selector(
    "earlier_blocks", "kv", shape=_earlier_shape, reference=_earlier, reads=OF_LENGTHS, flops=no_flops, attrs=GROUPS,
    doc="The mask of blocks with a key from before the step -> bool[QB, G, KB].",
    example="earlier_blocks(%kv) {groups = 9}",
)  # fmt: skip
define_selector(
    "block_tokens", "kv far mask", outside="mask",
    shape=_block_tokens_shape, reference=_block_tokens, reads=OF_LENGTHS, flops=no_flops,
    doc="The keys of the blocks of far bool[QB, G, KB] that a row sees and mask, of the same shape, does not hold -> "
    "positions i32[QB, G, 64*KB], ascending, and how many count i32[QB, G]; the rest is 0.",
    example="block_tokens(%kv, %far, %mask)",
)  # fmt: skip
define_selector(
    "representative_keys", "kv q", shape=_representative_shape, reference=_representative, reads=OF_LAYER,
    flops=_near_flops,
    attrs={**KEYS, **SCALE, "window": AttrSpec(int, required=True), "count": AttrSpec(int, 4), **DECODE},
    doc="Per key block that the step reaches the mean of the count keys that this step's queries q [T, H, E], each "
    "with a softmax over its last window keys, gave most weight, the heads of a group together -> f32[B, K, KB, E]; 0 "
    "for blocks of earlier steps, and for sequences with one token in the step unless decode is set.",
    example="representative_keys(%kv, %q) {kv_heads = 3, layer = 0, scale = 0.125, window = 4096}",
)  # fmt: skip
define_selector(
    "chunk_keys", "kv q k v inv_freq", shape=_chunk_shape, reference=_chunk_keys, reads=OF_LENGTHS, flops=_chunk_flops,
    attrs={**SCALE, "layout": AttrSpec(str, "half", choices=("half", "interleaved"))},
    doc="Per block of this step and head a key: q [T, H, E] and k [T, K, E], turned by their positions in the block "
    "times inv_freq [E/2], attend to each other without a mask; the mean of the mixed v [T, K, E] attends to the "
    "turned keys, whose mix it is -> f32[B, H, KB, E]; 0 for blocks of earlier steps.",
    example="chunk_keys(%kv, %q, %k, %v, %freq) {scale = 0.125}",
)  # fmt: skip
