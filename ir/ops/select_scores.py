"""Scores of key blocks for query blocks, from pooled or bounded queries and keys: ``f32[QB, H, KB]``.

A score is -inf where the block lies after the row's own, and in rows that no query block uses. Arithmetic of the
references is in f64. Ops that read the keys of the cache leave out sequences with a single token in the step unless
``decode`` is set: those decode, and attend to everything (ir/ops/block_attention.py); a pool of theirs is zero, a score
-inf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fretsaw.ir.attrs import float_of, str_of
from fretsaw.ir.kv import BLOCK, QueryBlock, ReferenceKvCache
from fretsaw.ir.op import Array, AttrSpec, ShapeError, elements, sizes, tensor
from fretsaw.ir.ops.cache import LAYER, OF_LAYER, OF_LENGTHS
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
    number,
    over_blocks,
)
from fretsaw.ir.types import TensorType, ValueType

DECODE = {"decode": AttrSpec(bool, False)}
SCALE = {"scale": AttrSpec(float, required=True)}
KEYS = {**LAYER, "kv_heads": AttrSpec(int, required=True)}
_POOLS: Mapping[str, Callable[..., Array]] = {"mean": np.mean, "max": np.max, "min": np.min}
_HEADS: Mapping[str, Callable[..., Array]] = {"sum": np.sum, "mean": np.mean, "max": np.max}


def real(attrs: Attrs, name: str) -> float:
    """A number among the attributes."""
    return float_of(attrs, name)


def query_heads(value: ValueType, slot: str = "q") -> int:
    """H of q [T, H, E], or a ShapeError."""
    t = tensor(value, slot)
    if t.rank != 3 or not isinstance(t.shape[1], int) or not isinstance(t.shape[2], int):
        raise ShapeError(f"needs {slot} [T, H, E], got {t}", slot)
    return t.shape[1]


def grouped_heads(value: ValueType, attrs: Attrs) -> int:
    """H of q [T, H, E], a multiple of ``kv_heads``, or a ShapeError."""
    heads = query_heads(value)
    if heads % number(attrs, "kv_heads", 1):
        raise ShapeError(f"{heads} heads do not share {attrs['kv_heads']} key heads", attr="kv_heads")
    return heads


def scored(kv: ReferenceKvCache, attrs: Attrs) -> list[QueryBlock]:
    """Query blocks that an op on keys scores."""
    only, decode = attrs.get("single"), attrs.get("decode")
    return [b for b in kv.query_blocks() if (decode if b.single else not only)]


def keys_of(kv: ReferenceKvCache, attrs: Attrs, sequence: int) -> Array:
    """Keys f64 [S, K, E] of a sequence."""
    keys, _ = kv.read(number(attrs, "layer"), sequence)
    return keys.astype(np.float64)


def _pool_queries(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (q,) = cache_of(operands), arrays(operands)
    out = np.zeros((kv.dims["QB"], *q.shape[1:]), np.float32)
    for block in kv.query_blocks():
        out[block.row] = _POOLS[str_of(attrs, "kind")](q[block.tokens].astype(np.float64), axis=0)
    return [out]


def _pool_keys(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, dims = cache_of(operands), cache_of(operands).dims
    out = np.zeros((dims["B"], number(attrs, "kv_heads"), dims["KB"], number(attrs, "size")), np.float32)
    for sequence in {b.sequence for b in scored(kv, attrs)}:
        keys = keys_of(kv, attrs, sequence)
        for j in range(0, len(keys), BLOCK):
            out[sequence, :, j // BLOCK] = _POOLS[str_of(attrs, "kind")](keys[j : j + BLOCK], axis=0)
    return [out]


def _block_scores(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (qp, kp) = cache_of(operands), arrays(operands)
    heads, out = qp.shape[1], blank(kv, qp.shape[1], fill=-np.inf)
    for block in kv.query_blocks():
        n = block.block + 1
        for h in range(heads):
            keys = kp[block.sequence, h * kp.shape[1] // heads, :n].astype(np.float64)
            out[block.row, h, :n] = keys @ qp[block.row, h].astype(np.float64) * real(attrs, "scale")
    return [out]


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x.astype(np.float64) ** 2)))


def _ratio(band: float, whole: float) -> float:
    """Rms of a band over that of the whole; 1 where all is zero."""
    return band / whole if band > 0 else 1.0


def band_of(size: int, start: int, end: int) -> list[int]:
    """Dimensions of rotary pairs start ... end: in the half layout, pair i is i and i + size // 2."""
    return [*range(start, end), *range(size // 2 + start, size // 2 + end)]


def _band_scores(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (qp, kp) = cache_of(operands), arrays(operands)
    heads, size, out = qp.shape[1], qp.shape[2], blank(kv, qp.shape[1], fill=-np.inf)
    band = band_of(size, number(attrs, "start"), number(attrs, "end"))
    for block in kv.query_blocks():
        n = block.block + 1
        for h in range(heads):
            q, keys = qp[block.row, h], kp[block.sequence, h * kp.shape[1] // heads, :n]
            heat = np.sqrt(len(band) / size) * _ratio(_rms(q[band]), _rms(q)) * _ratio(_rms(keys[:, band]), _rms(keys))
            dots = keys[:, band].astype(np.float64) @ q[band].astype(np.float64)
            out[block.row, h, :n] = dots * real(attrs, "scale") * np.sqrt(size / len(band)) / heat
    return [out]


def _bound_scores(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (q, lo, hi) = cache_of(operands), arrays(operands)
    heads, out = q.shape[1], blank(kv, q.shape[1], fill=-np.inf)
    for block in scored(kv, attrs):
        n = block.block + 1
        for h in range(heads):
            rows = q[block.tokens, h].astype(np.float64)[:, None]  # [rows, 1, E]
            low, high = (x[block.sequence, h * x.shape[1] // heads, :n].astype(np.float64) for x in (lo, hi))
            bound = np.maximum(rows * low, rows * high).sum(axis=2)
            out[block.row, h, :n] = bound.max(axis=0) * real(attrs, "scale")
    return [out]


def _antidiagonal(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (q,) = cache_of(operands), arrays(operands)
    heads, out = q.shape[1], blank(kv, q.shape[1], fill=-np.inf)
    keys: dict[int, Array] = {}  # per sequence [K, S, E], so that neighbouring keys of a head lie side by side
    for block in scored(kv, attrs):
        if block.sequence not in keys:
            keys[block.sequence] = np.ascontiguousarray(keys_of(kv, attrs, block.sequence).transpose(1, 0, 2))
        own = keys[block.sequence]
        for h in range(heads):
            rows = q[block.tokens, h].astype(np.float64)
            mass = antidiagonal_mass(rows, own[h * own.shape[0] // heads], block, attrs)
            out[block.row, h, : block.block + 1] = mass
    return [out]


def antidiagonal_mass(rows: Array, keys: Array, block: QueryBlock, attrs: Attrs) -> Array:
    """Mass of each visible key block for one query block of one head.

    A cell is ``stride`` neighbouring positions. Of each query cell the rows that exist are paired, last with first,
    with the first keys of a key cell: every row once, so adding a vector to all keys adds the same to all cells.

    Args:
        rows: Queries f64 [R, E] of the block.
        keys: Keys f64 [S, E] of the sequence.
    """
    stride = number(attrs, "stride")
    mass = np.zeros(block.block + 1)
    for cell in sorted(set(block.positions // stride)):
        own = rows[block.positions // stride == cell][::-1]  # [r, E]
        starts = np.arange(cell + 1) * stride
        whole = len(own) == stride  # then the keys of all cells lie one after another
        pairs = keys[: starts.size * stride] if whole else keys[starts[:, None] + np.arange(len(own))]
        dots = pairs.reshape(starts.size, -1) @ own.reshape(-1)  # over [cells, r x E]
        logits = dots * real(attrs, "scale") / (len(own) * real(attrs, "norm"))
        weights = np.exp(logits - logits.max())
        np.add.at(mass, starts // BLOCK, weights / weights.sum())
    return mass


def _softmax(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    (scores,) = arrays(operands, 0)
    x = scores.astype(np.float64)
    top = x.max(axis=2, keepdims=True, initial=-np.inf)
    e = np.exp(x - np.where(np.isneginf(top), 0, top))
    total = e.sum(axis=2, keepdims=True)
    return [(e / np.where(total == 0, 1, total)).astype(np.float32)]


def _pool_heads(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    (scores,) = arrays(operands, 0)
    groups = number(attrs, "groups")
    split = scores.reshape(scores.shape[0], groups, scores.shape[1] // groups, scores.shape[2]).astype(np.float64)
    return [_HEADS[str_of(attrs, "kind")](split, axis=2).astype(np.float32)]


def over_heads(heads: int) -> list[ValueType]:
    """The type of scores, as a list of results."""
    return [TensorType("f32", (QB, heads, KB))]


def _pool_queries_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    return [TensorType("f32", (QB, query_heads(types[1]), tensor(types[1], "q").shape[2]))]


def _pool_keys_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    return [TensorType("f32", (B, number(attrs, "kv_heads", 1), KB, number(attrs, "size", 1)))]


def _check_pools(types: Types, slot: str, heads: int, size: object) -> None:
    t = tensor(types[{"kp": 2, "lo": 2, "hi": 3}[slot]], slot)
    if t.rank != 4 or t.dtype != "f32" or t.shape[0] != B or t.shape[2] != KB or t.shape[3] != size:
        raise ShapeError(f"needs {slot} f32[B, K, KB, {size}], got {t}", slot)
    if not isinstance(t.shape[1], int) or t.shape[1] < 1 or heads % t.shape[1]:
        raise ShapeError(f"{heads} heads do not share {t.shape[1]} key heads", slot)


def _block_scores_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    heads, qp = query_heads(types[1], "qp"), tensor(types[1], "qp")
    if qp.shape[0] != QB or qp.dtype != "f32":
        raise ShapeError(f"needs qp f32[QB, H, E], got {qp}", "qp")
    _check_pools(types, "kp", heads, qp.shape[2])
    return over_heads(heads)


def _band_scores_shape(types: Types, attrs: Attrs) -> Types:
    out = _block_scores_shape(types, attrs)
    size = tensor(types[1], "qp").shape[2]
    assert isinstance(size, int)
    if not number(attrs, "start") < number(attrs, "end") <= size // 2:
        raise ShapeError(f"pairs {attrs['start']} ... {attrs['end']} are not among {size // 2}", attr="end")
    return out


def _bound_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    heads, size = query_heads(types[1]), tensor(types[1], "q").shape[2]
    if attrs.get("single") and not attrs.get("decode"):
        raise ShapeError("single scores sequences that decode alone, which needs decode", attr="single")
    for slot in ("lo", "hi"):
        _check_pools(types, slot, heads, size)
    return over_heads(heads)


def _antidiagonal_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    if BLOCK % number(attrs, "stride", 1):
        raise ShapeError(f"stride must divide {BLOCK}, is {attrs['stride']}", attr="stride")
    if not real(attrs, "norm") > 0:
        raise ShapeError(f"norm must be above 0, is {attrs['norm']}", attr="norm")
    return over_heads(grouped_heads(types[1], attrs))


def _softmax_shape(types: Types, attrs: Attrs) -> Types:
    return [TensorType("f32", (QB, over_blocks(types[0], "scores", "f32"), KB))]


def _pool_heads_shape(types: Types, attrs: Attrs) -> Types:
    heads, groups = over_blocks(types[0], "scores", "f32"), number(attrs, "groups", 1)
    if not isinstance(heads, int) or heads % groups or not heads:
        raise ShapeError(f"{heads} heads do not make {groups} groups", attr="groups")
    return over_heads(groups)


def _dot_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """Of a step whose tokens are one sequence from its start: half of the blocks are visible."""
    return elements(results[0]) * sizes(operands[1])[2]


def _bound_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    return 4 * elements(results[0]) // 2 * sizes(operands[1])[2] * BLOCK


def _pool_keys_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    return elements(results[0]) * BLOCK


def _antidiagonal_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """Half of all cells are visible: a dot product over ``stride`` rows each, an exponential and a sum."""
    count, heads, size = sizes(operands[1])
    stride = number(attrs, "stride")
    cells = -(-count // stride)
    return heads * (2 * stride * size + 5) * cells * (cells + 1) // 2


define_selector(
    "pool_queries", "kv q", shape=_pool_queries_shape, reference=_pool_queries, reads=OF_LENGTHS,
    flops=lambda operands, results, attrs: elements(operands[1]),
    attrs={"kind": AttrSpec(str, "mean", choices=tuple(_POOLS))},
    doc="Per query block the mean (max, min) of its rows of q [T, H, E] in this step -> f32[QB, H, E]; unused rows "
    "are 0.",
    example="pool_queries(%kv, %q)",
)  # fmt: skip
define_selector(
    "pool_keys", "kv", shape=_pool_keys_shape, reference=_pool_keys, reads=OF_LAYER, flops=_pool_keys_flops,
    attrs={**KEYS, "size": AttrSpec(int, required=True), "kind": AttrSpec(str, "mean", choices=tuple(_POOLS)),
           **DECODE},
    doc="Per key block the mean (max, min) of a layer's cached keys -> f32[B, K, KB, size], the last block by the keys "
    "it has; 0 where there are none, and for sequences with one token in the step unless decode is set.",
    example="pool_keys(%kv) {layer = 0, kv_heads = 3, size = 64}",
)  # fmt: skip
define_selector(
    "block_scores", "kv qp kp", shape=_block_scores_shape, reference=_block_scores, reads=OF_LENGTHS, flops=_dot_flops,
    attrs=SCALE,
    doc="Dot products of pooled queries qp f32[QB, H, E] with the pooled keys kp f32[B, K, KB, E] of the blocks up to "
    "the row's own, times scale -> f32[QB, H, KB], elsewhere -inf.",
    example="block_scores(%kv, %qp, %kp) {scale = 0.125}",
)  # fmt: skip
define_selector(
    "band_scores", "kv qp kp", shape=_band_scores_shape, reference=_band_scores, reads=OF_LENGTHS, flops=_dot_flops,
    attrs={**SCALE, "start": AttrSpec(int, required=True), "end": AttrSpec(int, required=True)},
    doc="As block_scores over the dimensions of rotary pairs start ... end alone (pair i is i and i + E/2), times "
    "E / band * rms(q) / rms(q_band) * rms(k) / rms(k_band), where k are the row's visible pools; a ratio is 1 where "
    "its band is zero.",
    example="band_scores(%kv, %qp, %kp) {scale = 0.125, start = 0, end = 16}",
)  # fmt: skip
define_selector(
    "bound_scores", "kv q lo hi", shape=_bound_shape, reference=_bound_scores, reads=OF_LENGTHS, flops=_bound_flops,
    attrs={**SCALE, **DECODE, "single": AttrSpec(bool, False)},
    doc="An upper bound of the logits of a query block with a key block, from the least and the greatest keys lo, hi "
    "f32[B, K, KB, E]: over its rows of q [T, H, E] the maximum of sum_d max(q_d * lo_d, q_d * hi_d), times scale "
    "(above 0) -> f32[QB, H, KB], elsewhere -inf. single: of sequences with one token in the step alone.",
    example="bound_scores(%kv, %q, %lo, %hi) {scale = 0.125}",
)  # fmt: skip
define_selector(
    "antidiagonal_scores", "kv q", shape=_antidiagonal_shape, reference=_antidiagonal, reads=OF_LAYER,
    flops=_antidiagonal_flops,
    attrs={**KEYS, **SCALE, "stride": AttrSpec(int, required=True), "norm": AttrSpec(float, 1.0), **DECODE},
    doc="Estimated attention mass of key blocks: cells of stride x stride positions get the mean logit of their "
    "antidiagonal over norm, a row of cells a softmax up to the diagonal, a block the sum of its cells -> "
    "f32[QB, H, KB], elsewhere -inf. Of a cell of queries the rows in this step count, each with one key of a cell.",
    example="antidiagonal_scores(%kv, %q) {layer = 0, kv_heads = 3, scale = 0.125, stride = 8}",
)  # fmt: skip
define_selector(
    "softmax_blocks", "scores", shape=_softmax_shape, reference=_softmax,
    flops=lambda operands, results, attrs: 5 * elements(results[0]),
    doc="Softmax of scores f32[QB, G, KB] over the blocks; rows of -inf give 0.",
    example="softmax_blocks(%scores)",
)  # fmt: skip
define_selector(
    "pool_heads", "scores", shape=_pool_heads_shape, reference=_pool_heads,
    flops=lambda operands, results, attrs: elements(operands[0]),
    attrs={"groups": AttrSpec(int, required=True), "kind": AttrSpec(str, "sum", choices=tuple(_HEADS))},
    doc="The sum (mean, max) of scores f32[QB, H, KB] over the heads of each group -> f32[QB, groups, KB].",
    example="pool_heads(%scores) {groups = 3}",
)  # fmt: skip
