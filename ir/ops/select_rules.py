"""Rules that choose key blocks by their scores f32[QB, G, KB]: so many, so much mass, above a threshold.

All rules agree on this: blocks that are forced stay, blocks after the row's own never do, NaN counts as -inf, and equal
scores are taken in order of their index. So a looser setting gives a superset, and the loosest one every causal block
exactly, which is decided before any score is read: sums of masses are rounded, and heads whose first keys lead by tens
of nats would lose blocks to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fretsaw.ir.attrs import float_of
from fretsaw.ir.kv import BLOCK
from fretsaw.ir.op import Array, AttrSpec, ShapeError
from fretsaw.ir.ops.cache import OF_LENGTHS
from fretsaw.ir.ops.select import (
    Attrs,
    Types,
    arrays,
    blank,
    cache_of,
    check_cache,
    define_selector,
    keeps_forced,
    mask,
    number,
    over_blocks,
)
from fretsaw.ir.traits import Full
from fretsaw.ir.types import ValueType

Rule = Callable[[Array, Array], Array]  # scores f32[n] without NaN and forced bool[n] of the n visible blocks -> kept


def best(scores: Array, forced: Array, k: int) -> Array:
    """Forced blocks, then the best others until there are ``k``; of equal ones the first."""
    order = np.argsort(np.where(forced, np.float32(-np.inf), -scores), kind="stable")
    order = np.concatenate([np.flatnonzero(forced), [j for j in order if not forced[j]]]).astype(int)
    kept = forced.copy()
    kept[order[:k]] = True
    return kept


def heaviest(scores: Array, forced: Array, p: float) -> Array:
    """Forced blocks, then the best others while what is kept weighs less than ``p`` of all; sums in f64."""
    weight = np.maximum(scores, 0).astype(np.float64)
    wanted = p * float(np.cumsum(weight)[-1])
    kept, mass = forced.copy(), float(np.cumsum(np.where(forced, weight, 0))[-1])
    for j in np.argsort(-scores, kind="stable"):
        if not kept[j] and mass < wanted:
            kept[j] = True
            mass += float(weight[j])
    return kept


def share(density: float, visible: int) -> int:
    """How many of ``visible`` blocks a share of them is: rounded up, at least one."""
    return max(1, math.ceil(density * visible))


def choose(operands: Sequence[object], everything: bool, rule: Rule) -> Sequence[Array]:
    """Apply a rule to the visible part of each row."""
    kv, (scores, forced) = cache_of(operands), arrays(operands)
    out = blank(kv, scores.shape[1])
    for block in kv.query_blocks():
        n = block.block + 1
        clean = np.where(np.isnan(scores[block.row, :, :n]), np.float32(-np.inf), scores[block.row, :, :n])
        for g in range(scores.shape[1]):
            must = forced[block.row, g, :n]
            out[block.row, g, :n] = True if everything else rule(clean[g], must)
    return [out]


def _top_k(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    k = number(attrs, "k")
    return choose(operands, False, lambda scores, forced: best(scores, forced, k))


def _top_p(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    p = float_of(attrs, "p")
    return choose(operands, p >= 1, lambda scores, forced: heaviest(scores, forced, p))


def _above(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    threshold = float_of(attrs, "threshold")
    return choose(operands, threshold <= 0, lambda scores, forced: forced | (scores > np.float32(threshold)))


def _share(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    density = float_of(attrs, "density")
    return choose(operands, density >= 1, lambda scores, forced: best(scores, forced, share(density, len(scores))))


def check_rule(types: Types) -> list[ValueType]:
    """Types of ``kv scores forced``, and the mask that comes of them."""
    check_cache(types)
    scores, forced = over_blocks(types[1], "scores", "f32"), over_blocks(types[2], "forced", "bool")
    if scores != forced:
        raise ShapeError(f"scores of {scores} groups, forced blocks of {forced}", "forced")
    return mask(scores)


def _real_shape(name: str) -> Callable[[Types, Attrs], Types]:
    def shape(types: Types, attrs: Attrs) -> Types:
        if math.isnan(float_of(attrs, name)):
            raise ShapeError(f"{name} is NaN", attr=name)
        return check_rule(types)

    return shape


def _top_k_shape(types: Types, attrs: Attrs) -> Types:
    number(attrs, "k", 1)
    return check_rule(types)


def _flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """Comparisons are none of floating point arithmetic; what top_p adds up is lost beside any score."""
    return 0


_ENDS = "Forced blocks stay, NaN is the lowest score, of equal ones the first is taken -> bool[QB, G, KB]."


def _top_k_rows(attrs: Attrs, masks: Mapping[str, Full]) -> Full:
    """As many blocks as it takes, from the first on."""
    return keeps_forced(attrs, masks) | Full(number(attrs, "k") * BLOCK)


define_selector(
    "select_top_k", "kv scores forced", full_rows=_top_k_rows,
    shape=_top_k_shape, reference=_top_k, reads=OF_LENGTHS, flops=_flops,
    attrs={"k": AttrSpec(int, required=True)},
    doc=f"The k best blocks of a row, forced ones counted first; all where no more are visible. {_ENDS}",
    example="select_top_k(%kv, %scores, %forced) {k = 16}",
)  # fmt: skip
define_selector(
    "select_share", "kv scores forced", shape=_real_shape("density"), reference=_share, reads=OF_LENGTHS, flops=_flops,
    attrs={"density": AttrSpec(float, required=True)},
    doc=f"As select_top_k with k = max(1, ceil(density * visible blocks)); density 1 and more: all. {_ENDS}",
    example="select_share(%kv, %scores, %forced) {density = 0.25}",
)  # fmt: skip
define_selector(
    "select_top_p", "kv scores forced", shape=_real_shape("p"), reference=_top_p, reads=OF_LENGTHS, flops=_flops,
    attrs={"p": AttrSpec(float, required=True)},
    doc="Scores are masses (below 0 none): forced blocks, then the best others as long as the mass kept is less than p "
    f"of the row's; p 1 and more: all. {_ENDS}",
    example="select_top_p(%kv, %scores, %forced) {p = 0.9}",
)  # fmt: skip
define_selector(
    "select_above", "kv scores forced", shape=_real_shape("threshold"), reference=_above, reads=OF_LENGTHS,
    flops=_flops,
    attrs={"threshold": AttrSpec(float, required=True)},
    doc=f"Blocks whose score is above the threshold; 0 and less: all. {_ENDS}",
    example="select_above(%kv, %scores, %forced) {threshold = 0.002}",
)  # fmt: skip
