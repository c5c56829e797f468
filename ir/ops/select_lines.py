"""Scores of the columns and diagonals of an attention map from its last rows, and blocks that the best lines touch.

The last queries of a sequence in the step are attended to in full. What a key gets from all of them is the score of its
column; what lies at a distance d from all of them is the score of diagonal d. Both are ``f32[B, H, S]`` with S = 64 KB.
A column passes one block of every row, a diagonal two neighbouring ones, so a mask of blocks covers the lines. Columns
can also be listed token by token, for attention that gathers them: far fewer keys, where they lie apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fretsaw.ir.kv import BLOCK, QueryBlock, ReferenceKvCache
from fretsaw.ir.op import Array, AttrSpec, ShapeError, no_flops, sizes, tensor
from fretsaw.ir.ops.cache import OF_LAYER, OF_LENGTHS
from fretsaw.ir.ops.select import (
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
    per_head,
)
from fretsaw.ir.ops.select_rules import best
from fretsaw.ir.ops.select_scores import DECODE, KEYS, SCALE, grouped_heads, keys_of, over_heads, real, scored
from fretsaw.ir.types import TensorType, ValueType

_BUDGET = {"columns": AttrSpec(int, required=True), "diagonals": AttrSpec(int, required=True)}
_KEPT = {"first_columns": AttrSpec(int, 0), "near_diagonals": AttrSpec(int, 0)}


def _line_scores(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (q,) = cache_of(operands), arrays(operands)
    dims, heads = kv.dims, q.shape[1]
    columns, diagonals = np.zeros((2, dims["B"], heads, dims["KB"] * BLOCK))
    for last in _last_blocks(kv, attrs):
        keys = keys_of(kv, attrs, last.sequence)
        step = next(rows for rows, sequence in kv.segments() if sequence == last.sequence)
        count = min(number(attrs, "rows"), step.stop - step.start)
        rows = q[step.stop - count : step.stop].astype(np.float64)
        for r, position in enumerate(range(last.end - count, last.end)):
            for h in range(heads):
                logits = keys[: position + 1, h * keys.shape[1] // heads] @ rows[r, h] * real(attrs, "scale")
                weights = np.exp(logits - logits.max())
                weights /= weights.sum()
                columns[last.sequence, h, : position + 1] += weights
                diagonals[last.sequence, h, : position + 1] += weights[::-1]
    return [columns.astype(np.float32), diagonals.astype(np.float32)]


def _last_blocks(kv: ReferenceKvCache, attrs: Attrs) -> list[QueryBlock]:
    """The last query block of each sequence that is scored."""
    return list({b.sequence: b for b in scored(kv, attrs)}.values())


def top_lines(scores: Array, kept: int, budget: int) -> Array:
    """Numbers of the best lines, ascending: the first ``kept``, then the best of f32[n] until there are ``budget``."""
    forced = np.arange(len(scores)) < kept
    return np.flatnonzero(best(np.where(np.isnan(scores), np.float32(-np.inf), scores), forced, budget))


def touched(diagonals: Array) -> Array:
    """How many blocks before the row's own the blocks lie that a diagonal touches, [2, n] (equal where it is one)."""
    return np.stack([diagonals // BLOCK, -(-diagonals // BLOCK)])


def _line_blocks(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (columns, diagonals, forced) = cache_of(operands), arrays(operands)
    out = blank(kv, columns.shape[1])
    for block in kv.query_blocks():
        j = np.arange(block.block + 1)
        for h in range(columns.shape[1]):
            cols, far = _lines(columns[block.sequence, h], diagonals[block.sequence, h], block.end, attrs)
            hit = np.isin(j, cols // BLOCK) | np.isin(block.block - j, touched(far))
            out[block.row, h, j] = hit | forced[block.row, h, j]
    return [out]


def _lines(columns: Array, diagonals: Array, end: int, attrs: Attrs) -> tuple[Array, Array]:
    """The best columns and diagonals of one head of a sequence of ``end`` tokens."""
    cols = top_lines(columns[:end], number(attrs, "first_columns"), number(attrs, "columns"))
    return cols, top_lines(diagonals[:end], number(attrs, "near_diagonals"), number(attrs, "diagonals"))


def _line_tokens(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (columns, read) = cache_of(operands), arrays(operands)
    counts = per_head(attrs, "columns")
    ids = np.zeros((*read.shape[:2], max(counts)), np.int32)
    cnt = np.zeros(read.shape[:2], np.int32)
    for block in kv.query_blocks():
        last = min((block.block + 1) * BLOCK, block.end)
        for h, count in enumerate(counts):
            if count:
                cols = top_lines(columns[block.sequence, h, : block.end], number(attrs, "first_columns"), count)
                cols = cols[(cols < last) & ~read[block.row, h, cols // BLOCK]]
                ids[block.row, h, : cols.size], cnt[block.row, h] = cols, cols.size
    return [ids, cnt]


def _line_block_scores(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (columns, diagonals) = cache_of(operands), arrays(operands)
    out = blank(kv, columns.shape[1], fill=-np.inf)
    for block in kv.query_blocks():
        for h in range(columns.shape[1]):
            both = columns[block.sequence, h], diagonals[block.sequence, h]
            cols, far = _lines(*both, block.end, attrs)
            col, diagonal = (np.maximum(np.nan_to_num(x, nan=0.0), 0).astype(np.float64) for x in both)
            mass = np.zeros(-(-block.end // BLOCK))
            np.add.at(mass, cols // BLOCK, col[cols])
            for d in far:
                for back in {int(x) for x in touched(d) if x <= block.block}:
                    mass[block.block - back] += float(diagonal[d])
            out[block.row, h, : block.block + 1] = mass[: block.block + 1]
    return [out]


def line_budget(scores: Array, gamma: float, low: int, high: int) -> int:
    """How many blocks hold a share ``gamma`` of the lines' mass if it were packed into them: f32[n] -> blocks."""
    weight = np.sort(np.maximum(np.nan_to_num(scores, nan=0.0), 0).astype(np.float64))[::-1]
    total = float(weight.sum())
    lines = int((np.cumsum(weight) <= gamma * total).sum()) + 1
    blocks = max(lines // BLOCK + 1, low)
    return min(blocks, high) if high else blocks


def _flex_blocks(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (columns, diagonals, forced) = cache_of(operands), arrays(operands)
    out = blank(kv, columns.shape[1])
    for block in kv.query_blocks():
        n, blocks = block.block + 1, -(-block.end // BLOCK)
        for h in range(columns.shape[1]):
            chosen = []
            for lines in (columns[block.sequence, h], diagonals[block.sequence, h]):
                low, high = number(attrs, "min_blocks"), number(attrs, "max_blocks")
                budget = line_budget(lines[: block.end], real(attrs, "gamma"), low, high)
                weight = np.maximum(np.nan_to_num(lines[: block.end], nan=0.0), 0).astype(np.float64)
                weight = np.pad(weight, (0, blocks * BLOCK - block.end))
                pooled = weight.reshape(blocks, BLOCK).sum(axis=1).astype(np.float32)
                chosen.append(best(pooled, np.arange(blocks) == 0, budget))
            hit = chosen[0][:n] | chosen[1][:n][::-1]
            everything = real(attrs, "gamma") >= 1
            out[block.row, h, :n] = everything | hit | forced[block.row, h, :n]
    return [out]


def _line_scores_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    number(attrs, "rows", 1)
    lines = TensorType("f32", (B, grouped_heads(types[1], attrs), KB * BLOCK))
    return [lines, lines]


def _check_lines(types: Types) -> int:
    check_cache(types)
    columns, diagonals = tensor(types[1], "columns"), tensor(types[2], "diagonals")
    heads = columns.shape[1] if columns.rank == 3 else 0
    if not isinstance(heads, int) or columns != TensorType("f32", (B, heads, KB * BLOCK)) or not heads:
        raise ShapeError(f"needs columns f32[B, H, {BLOCK}*KB], got {columns}", "columns")
    if diagonals != columns:
        raise ShapeError(f"columns are {columns}, diagonals {diagonals}", "diagonals")
    return heads


def _check_forced(types: Types, heads: int) -> list[ValueType]:
    if over_blocks(types[3], "forced", "bool") != heads:
        raise ShapeError(f"lines of {heads} heads, forced blocks {types[3]}", "forced")
    return mask(heads)


def _line_blocks_shape(types: Types, attrs: Attrs) -> Types:
    for name in (*_BUDGET, *_KEPT):
        number(attrs, name)
    return _check_forced(types, _check_lines(types))


def _line_tokens_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    columns, counts = tensor(types[1], "columns"), per_head(attrs, "columns")
    if columns != TensorType("f32", (B, len(counts), KB * BLOCK)):
        raise ShapeError(f"needs columns f32[B, {len(counts)}, {BLOCK}*KB], got {columns}", "columns")
    if over_blocks(types[2], "mask", "bool") != len(counts):
        raise ShapeError(f"columns of {len(counts)} heads, a mask {types[2]}", "mask")
    first = number(attrs, "first_columns")
    if not any(counts) or any(0 < n < first for n in counts):
        raise ShapeError(f"some head lists columns, and those {first} or more, are {counts}", attr="columns")
    return [TensorType("i32", (QB, len(counts), max(counts))), TensorType("i32", (QB, len(counts)))]


def _line_block_scores_shape(types: Types, attrs: Attrs) -> Types:
    for name in (*_BUDGET, *_KEPT):
        number(attrs, name)
    return over_heads(_check_lines(types))


def _flex_shape(types: Types, attrs: Attrs) -> Types:
    low, high = number(attrs, "min_blocks", 1), number(attrs, "max_blocks")
    if high and high < low:
        raise ShapeError(f"max_blocks {high} is below min_blocks {low}", attr="max_blocks")
    if not real(attrs, "gamma") > 0:
        raise ShapeError(f"gamma must be above 0, is {attrs['gamma']}", attr="gamma")
    return _check_forced(types, _check_lines(types))


def _line_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """Of a step whose tokens are one sequence from its start."""
    count, heads, size = sizes(operands[1])
    return min(number(attrs, "rows"), count) * heads * count * (2 * size + 7)


_LINES = (
    "The first first_columns columns and near_diagonals diagonals are among them whatever they score, NaN is the "
    "lowest score, of equal ones the first is taken."
)
define_selector(
    "line_scores", "kv q", shape=_line_scores_shape, reference=_line_scores, reads=OF_LAYER, flops=_line_flops,
    attrs={**KEYS, **SCALE, "rows": AttrSpec(int, 64), **DECODE},
    doc="Attention weights of the last rows queries of each sequence in the step, added up by key and by distance -> "
    "columns f32[B, H, 64*KB], diagonals f32[B, H, 64*KB]; 0 where there is nothing, and for sequences with one token "
    "in the step unless decode is set.",
    example="line_scores(%kv, %q) {layer = 0, kv_heads = 3, scale = 0.125}",
)  # fmt: skip
define_selector(
    "line_blocks", "kv columns diagonals forced", shape=_line_blocks_shape, reference=_line_blocks, reads=OF_LENGTHS,
    flops=no_flops, attrs={**_BUDGET, **_KEPT},
    doc="Blocks that the best columns and the best diagonals of a head touch (a diagonal of its row: two neighbours), "
    f"and forced ones -> bool[QB, H, KB]. {_LINES}",
    example="line_blocks(%kv, %columns, %diagonals, %forced) {columns = 1000, diagonals = 6096}",
)  # fmt: skip
define_selector(
    "line_tokens", "kv columns mask", outside="mask",
    shape=_line_tokens_shape, reference=_line_tokens, reads=OF_LENGTHS, flops=no_flops,
    attrs={"columns": AttrSpec(tuple, required=True), "first_columns": AttrSpec(int, 0)},
    doc="The best columns of each head (so many of each, 0: none) that its rows see and no block of the mask holds -> "
    "positions i32[QB, H, N], ascending, N the most of any head, and how many count i32[QB, H]; the rest is 0. The "
    "first first_columns are among them whatever they score, NaN is the lowest score, of equal ones the first is "
    "taken.",
    example="line_tokens(%kv, %columns, %mask) {columns = [1000, 0, 1000], first_columns = 30}",
)  # fmt: skip
define_selector(
    "line_block_scores", "kv columns diagonals", shape=_line_block_scores_shape, reference=_line_block_scores,
    reads=OF_LENGTHS, flops=no_flops, attrs={**_BUDGET, **_KEPT},
    doc="For each block the scores of the best columns and diagonals that touch it, added up -> f32[QB, H, KB], after "
    f"the row's own block -inf. {_LINES}",
    example="line_block_scores(%kv, %columns, %diagonals) {columns = 1000, diagonals = 1000}",
)  # fmt: skip
define_selector(
    "flex_blocks", "kv columns diagonals forced", shape=_flex_shape, reference=_flex_blocks, reads=OF_LENGTHS,
    flops=no_flops,
    attrs={"gamma": AttrSpec(float, required=True), "min_blocks": AttrSpec(int, 1), "max_blocks": AttrSpec(int, 0)},
    doc="Blocks of columns and blocks of diagonals, each the best by their sums, the first always: as many as would "
    "hold the fewest lines whose mass exceeds gamma of all, n lines in n // 64 + 1 blocks, between min_blocks and "
    "max_blocks (0: no limit). Diagonal block m is the block m before the row's own; forced blocks are added; gamma 1 "
    "and more: all -> bool[QB, H, KB].",
    example="flex_blocks(%kv, %columns, %diagonals, %forced) {gamma = 0.9}",
)  # fmt: skip
