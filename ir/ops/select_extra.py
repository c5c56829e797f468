"""Masks and scores that single methods need: spans that grow, prompts whole, FlexPrefill's switch, halving (HiP).

Masks and scores as in select.py and select_scores.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fretsaw.ir.attrs import int_of
from fretsaw.ir.kv import BLOCK, QueryBlock
from fretsaw.ir.op import Array, AttrSpec, ShapeError, no_flops, sizes
from fretsaw.ir.ops.cache import OF_LAYER, OF_LENGTHS
from fretsaw.ir.ops.select import (
    GROUPS,
    KB,
    Attrs,
    B,
    Types,
    arrays,
    blank,
    cache_of,
    check_cache,
    define_selector,
    is_dense,
    mask,
    number,
    over_blocks,
)
from fretsaw.ir.ops.select_rules import best
from fretsaw.ir.ops.select_scores import DECODE, KEYS, grouped_heads, keys_of, real
from fretsaw.ir.traits import Full
from fretsaw.ir.types import TensorType

EIGHTHS = 8  # units of beta
TINY = 1e-10  # added to probabilities under a logarithm


def elastic_window(end: int, alpha: int, beta: int) -> int:
    """alpha + beta/8 of ``end`` tokens, rounded up to whole blocks, at least one."""
    tokens = alpha + -(-beta * end // EIGHTHS)
    return max(BLOCK, -(-tokens // BLOCK) * BLOCK)


def _elastic(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv = cache_of(operands)
    out = blank(kv, number(attrs, "groups"))
    alpha = int_of(attrs, "alpha")
    for block in kv.query_blocks():
        j = np.arange(block.block + 1)
        near = elastic_window((block.block + 1) * BLOCK, alpha, number(attrs, "beta")) // BLOCK
        kept = (block.block - j < near) | (j < number(attrs, "sink")) | is_dense(block, attrs)
        out[block.row, :, : block.block + 1] = kept
    return [out]


def _elastic_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    for name in ("sink", "beta", "dense_until", "last_rows"):
        number(attrs, name)
    return mask(number(attrs, "groups", 1))


def _prompts(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv = cache_of(operands)
    out = blank(kv, number(attrs, "groups"))
    for block in kv.query_blocks():
        out[block.row, :, : block.block + 1] = not block.single
    return [out]


def _prompts_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    return mask(number(attrs, "groups", 1))


def softmax(x: Array) -> Array:
    """f64 [n] -> f64 [n]."""
    e = np.exp(x - x.max())
    out: Array = e / e.sum()
    return out


def js_distance(a: Array, b: Array) -> float:
    """Square root of the Jensen-Shannon divergence of two distributions f64 [n], in nats; never NaN."""
    middle = (a + b) / 2
    parts = [float((p * np.log((p + TINY) / (middle + TINY))).sum()) for p in (a, b)]
    return float(np.sqrt(max(0.0, sum(parts) / 2)))


def _flex_switch(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (columns, qp, kp, lines, few) = cache_of(operands), arrays(operands)
    out = lines.copy()
    by_sequence: dict[int, list[QueryBlock]] = {}
    for block in kv.query_blocks():
        by_sequence.setdefault(block.sequence, []).append(block)
    for sequence, rows in by_sequence.items():
        n = -(-rows[-1].end // BLOCK)
        for h in range(qp.shape[1]):
            keys = kp[sequence, h * kp.shape[1] // qp.shape[1], :n].astype(np.float64)
            logits = qp[[b.row for b in rows], h].astype(np.float64) @ keys.T * real(attrs, "scale")
            true = columns[sequence, h, : n * BLOCK].astype(np.float64).reshape(n, BLOCK).sum(axis=1)
            total = true.sum()
            if total > 0 and js_distance(softmax(logits[-1]), true / total) < real(attrs, "tau"):
                own = _heaviest_of_all(logits, rows, real(attrs, "gamma"))
                for block, kept in zip(rows, own, strict=True):
                    out[block.row, h, :n] = few[block.row, h, :n] | kept
    return [out]


def _heaviest_of_all(logits: Array, rows: Sequence[QueryBlock], gamma: float) -> Array:
    """Entries of the pooled map f64 [rows, n], each row a softmax up to its own block, of all rows together the
    heaviest while what is kept weighs at most gamma times the rows; of equal ones the first."""
    masses = np.zeros_like(logits)
    for r, block in enumerate(rows):
        masses[r, : block.block + 1] = softmax(logits[r, : block.block + 1])
    order = np.argsort(-masses, axis=None, kind="stable")
    kept = np.zeros(masses.size, bool)
    kept[order] = np.cumsum(masses.ravel()[order]) <= gamma * len(rows)
    kept &= masses.ravel() > 0  # blocks after a row's own have no mass
    return kept.reshape(masses.shape)


def _flex_switch_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    heads = over_blocks(types[4], "lines", "bool")
    if over_blocks(types[5], "few", "bool") != heads or not isinstance(heads, int):
        raise ShapeError(f"lines are {types[4]}, few {types[5]}", "few")
    if types[1] != TensorType("f32", (B, heads, KB * BLOCK)):
        raise ShapeError(f"needs columns f32[B, {heads}, {BLOCK}*KB], got {types[1]}", "columns")
    if not real(attrs, "gamma") > 0:
        raise ShapeError(f"gamma must be above 0, is {attrs['gamma']}", attr="gamma")
    return mask(heads)


def _halving(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (q, forced) = cache_of(operands), arrays(operands)
    out = blank(kv, q.shape[1])
    for block in kv.query_blocks():
        keys = keys_of(kv, attrs, block.sequence)
        for h in range(q.shape[1]):
            rows = q[block.tokens, h].astype(np.float64)
            rows = rows[1::2] if len(rows) > 1 else rows  # every second query
            rows = rows[:0] if block.single and not attrs.get("decode") else rows
            mine = keys[:, h * keys.shape[1] // q.shape[1]]
            must = forced[block.row, h, : block.block + 1]
            out[block.row, h, : block.block + 1] = halved(rows, mine, must, number(attrs, "blocks"))
    return [out]


def halved(rows: Array, keys: Array, forced: Array, k: int) -> Array:
    """Blocks that a hierarchical halving keeps, with the forced ones, bool[n].

    The blocks that are not forced, in order, are cut into ``k`` groups as equal as can be. Then, while a group has more
    than one block: every group is cut in two (the first half the larger), a half is worth the largest product of a row
    with a key of its first block's middle, and the best k halves stay.

    Args:
        rows: Queries f64 [R, E]; without any the first halves stay.
        keys: Keys f64 [S, E]; the middle of block j is key 64 j + 31, or the last one there is.
    """
    free = np.flatnonzero(~forced)
    if len(free) <= k:
        return np.ones(len(forced), bool)
    cuts = np.linspace(0, len(free), k + 1).round().astype(int)
    groups = [(int(a), int(b)) for a, b in zip(cuts, cuts[1:], strict=False)]
    while any(b - a > 1 for a, b in groups):
        halves = []
        for a, b in groups:
            middle = a + -(-(b - a) // 2)
            halves += [(a, middle)] + ([(middle, b)] if middle < b else [])
        at = [min(int(free[a]) * BLOCK + BLOCK // 2 - 1, len(keys) - 1) for a, _ in halves]
        worth = (rows @ keys[at].T).max(axis=0, initial=-np.inf)
        groups = [halves[i] for i in np.flatnonzero(best(worth.astype(np.float32), np.zeros(len(halves), bool), k))]
    out = forced.copy()
    out[[int(free[a]) for a, _ in groups]] = True
    return out


def _halving_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    heads = grouped_heads(types[1], attrs)
    number(attrs, "blocks", 1)
    if over_blocks(types[2], "forced", "bool") != heads:
        raise ShapeError(f"queries of {heads} heads, forced blocks {types[2]}", "forced")
    return mask(heads)


def _halving_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """Half of the rows with 2 k middles in every one of log2(n / k) rounds, for the last row's n."""
    count, heads, size = sizes(operands[1])
    rounds = max(1, (count // BLOCK // number(attrs, "blocks")).bit_length())
    return heads * count // 2 * 2 * size * 2 * number(attrs, "blocks") * rounds


_DENSE = {"dense_until": AttrSpec(int, 0), "last_rows": AttrSpec(int, 0)}
define_selector(
    "elastic_blocks", "kv", shape=_elastic_shape, reference=_elastic, reads=OF_LENGTHS, flops=no_flops,
    attrs={**GROUPS, "sink": AttrSpec(int, 1), "alpha": AttrSpec(int, required=True),
           "beta": AttrSpec(int, required=True), **_DENSE},
    doc="The mask of the first sink blocks and of a window that grows: a row that ends at position e (its block whole) "
    "reads the last alpha + beta/8 * e tokens, rounded up to blocks, at least its own -> bool[QB, G, KB]. Dense rows "
    "as in forced_blocks.",
    example="elastic_blocks(%kv) {alpha = 512, beta = 1, groups = 9}",
)  # fmt: skip
define_selector(
    "prompt_blocks", "kv", full_rows=lambda attrs, masks: Full(prompts=True),
    shape=_prompts_shape, reference=_prompts, reads=OF_LENGTHS, flops=no_flops, attrs=GROUPS,
    doc="The mask of every causal block for rows of sequences with more than one token in the step, of none for rows "
    "that decode -> bool[QB, G, KB].",
    example="prompt_blocks(%kv) {groups = 9}",
)  # fmt: skip
define_selector(
    "flex_switch", "kv columns qp kp lines few", shape=_flex_switch_shape, reference=_flex_switch, reads=OF_LENGTHS,
    flops=no_flops, full_rows=lambda attrs, masks: masks["lines"] & masks["few"],
    attrs={"gamma": AttrSpec(float, required=True), "tau": AttrSpec(float, required=True),
           "scale": AttrSpec(float, required=True)},
    doc="Per sequence and head: where the softmax of the last query block's mean with the keys' means is nearer than "
    "tau (square root of the Jensen-Shannon divergence, nats) to the columns added up by block, the mask few and the "
    "heaviest entries of the pooled map of all rows together, up to gamma of its mass; elsewhere the mask lines -> "
    "bool[QB, H, KB].",
    example="flex_switch(%kv, %columns, %qp, %kp, %lines, %few) {gamma = 0.9, scale = 0.125, tau = 0.1}",
)  # fmt: skip
define_selector(
    "halving_blocks", "kv q forced", shape=_halving_shape, reference=_halving, reads=OF_LAYER, flops=_halving_flops,
    attrs={**KEYS, "blocks": AttrSpec(int, required=True), **DECODE},
    doc="Forced blocks, and as many others as blocks says, found by hierarchical halving: the visible others are cut "
    "into that many groups; each group in two, until groups are single blocks, of which the best stay by the largest "
    "product of every second query with the middle key of a half's first block -> bool[QB, H, KB].",
    example="halving_blocks(%kv, %q, %forced) {blocks = 8, kv_heads = 3, layer = 0}",
)  # fmt: skip
