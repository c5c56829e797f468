"""Masks over blocks: which key blocks a query block may read, before any score.

A mask is ``bool[QB, G, KB]``: rows are query blocks (ir/kv.py), G groups of heads, KB key blocks. Whatever a rule
chooses, a mask never holds a block after the row's own one, and rows that no query block uses are empty. A selector
ends in ``compact_blocks``, which makes the lists that ``block_attention`` reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fretsaw.ir.dims import DimLike, sym
from fretsaw.ir.kv import BLOCK, QueryBlock, ReferenceKvCache
from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, ShapeRule, define_op, no_flops, tensor
from fretsaw.ir.ops.cache import KV_CACHE, is_cache
from fretsaw.ir.types import TensorType, ValueType

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]
QB, KB, B = sym("QB"), sym("KB"), sym("B")
GROUPS = {"groups": AttrSpec(int, required=True)}
_DENSE = {"dense_until": AttrSpec(int, 0), "last_rows": AttrSpec(int, 0)}
CAUSAL = "It never holds a block after the row's own; unused rows are empty."


def number(attrs: Attrs, name: str, low: int = 0) -> int:
    """An integer attribute of at least ``low``, or a ShapeError that names it."""
    value = attrs[name]
    if not isinstance(value, int) or value < low:
        raise ShapeError(f"{name} must be {low} or more, is {value}", attr=name)
    return value


def per_head(attrs: Attrs, name: str) -> tuple[int, ...]:
    """A tuple attribute with one count per head, or a ShapeError that names it."""
    value = attrs[name]
    if not isinstance(value, tuple) or not value:
        raise ShapeError(f"{name} is one number per head, is {value}", attr=name)
    numbers = tuple(n for n in value if isinstance(n, int) and n >= 0)
    if len(numbers) != len(value):
        raise ShapeError(f"{name} is one number per head, 0 or more, is {value}", attr=name)
    return numbers


def check_cache(types: Types) -> None:
    """The first operand is the cache."""
    if not is_cache(types[0]):
        raise ShapeError(f"kv must be {KV_CACHE}, is {types[0]}", "kv")


def over_blocks(value: ValueType, slot: str, dtype: str) -> DimLike:
    """Groups of an array over blocks [QB, G, KB], or a ShapeError that names the slot."""
    t = tensor(value, slot)
    if t.rank != 3 or t.dtype != dtype or t.shape[0] != QB or t.shape[2] != KB:
        raise ShapeError(f"needs {dtype}[QB, G, KB], got {t}", slot)
    return t.shape[1]


def mask(groups: DimLike) -> list[ValueType]:
    """The type of a mask, as a list of results."""
    return [TensorType("bool", (QB, groups, KB))]


def blank(kv: ReferenceKvCache, *inner: int, fill: float | bool = False) -> Array:
    """[QB, *inner, KB] of ``fill``: f32, or bool where it is one."""
    dims = kv.dims
    return np.full((dims["QB"], *inner, dims["KB"]), fill, bool if isinstance(fill, bool) else np.float32)


def cache_of(operands: Sequence[object]) -> ReferenceKvCache:
    """The first operand of a reference."""
    assert isinstance(operands[0], ReferenceKvCache)
    return operands[0]


def arrays(operands: Sequence[object], start: int = 1) -> list[Array]:
    """The operands from ``start`` on."""
    out = [a for a in operands[start:] if isinstance(a, np.ndarray)]
    assert len(out) == len(operands) - start
    return out


def is_dense(block: QueryBlock, attrs: Attrs) -> bool:
    """The row keeps every causal block: it ends before ``dense_until``, or holds one of the ``last_rows`` tokens."""
    end = min((block.block + 1) * BLOCK, block.end)
    return end <= number(attrs, "dense_until") or end > block.end - number(attrs, "last_rows")


def _causal(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv = cache_of(operands)
    out = blank(kv, number(attrs, "groups"))
    for block in kv.query_blocks():
        out[block.row, :, : block.block + 1] = True
    return [out]


def _forced(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv = cache_of(operands)
    out, (all_of,) = blank(kv, number(attrs, "groups")), _causal(operands, attrs)
    for block in kv.query_blocks():
        near = max(0, block.block + 1 - number(attrs, "local"))
        out[block.row, :, : number(attrs, "sink")] = True
        out[block.row, :, 0 if is_dense(block, attrs) else near :] = True
    return [out & all_of]


def _spans(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv = cache_of(operands)
    sinks, windows = per_head(attrs, "sink"), per_head(attrs, "window")
    out = blank(kv, len(sinks))
    for block in kv.query_blocks():
        j = np.arange(block.block + 1)
        for h, (sink, window) in enumerate(zip(sinks, windows, strict=True)):
            near = block.first - (j * BLOCK + BLOCK - 1) < window  # from the first row to the block's last key
            out[block.row, h, j] = is_dense(block, attrs) or (near | (j * BLOCK < sink) if window else True)
    return [out]


def _strided(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, offsets = cache_of(operands), per_head(attrs, "offsets")
    out = blank(kv, len(offsets))
    for block in kv.query_blocks():
        j = np.arange(block.block + 1)
        for h, offset in enumerate(offsets):
            hit = (j + offset) % number(attrs, "stride") == 0
            out[block.row, h, j] = is_dense(block, attrs) or (block.block - j < number(attrs, "local")) | hit
    return [out]


def _union(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    a, b = arrays(operands, 0)
    return [a | b]


def _pick(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    masks, choice = arrays(operands, 0), per_head(attrs, "choice")
    picked = [masks[c][:, h * masks[c].shape[1] // len(choice)] for h, c in enumerate(choice)]
    return [np.stack(picked, axis=1)]


def _compact(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    (chosen,) = arrays(operands, 0)
    cnt = chosen.sum(axis=2).astype(np.int32)
    order = np.argsort(~chosen, axis=2, kind="stable").astype(np.int32)
    return [np.where(np.arange(chosen.shape[2]) < cnt[:, :, None], order, 0).astype(np.int32), cnt]


def _groups_shape(*names: str) -> ShapeRule:
    def shape(types: Types, attrs: Attrs) -> Types:
        check_cache(types)
        for name in names:
            number(attrs, name)
        return mask(number(attrs, "groups", 1))

    return shape


def _spans_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    number(attrs, "dense_until"), number(attrs, "last_rows")
    sinks, windows = per_head(attrs, "sink"), per_head(attrs, "window")
    if len(sinks) != len(windows):
        raise ShapeError(f"sink is given for {len(sinks)} heads, window for {len(windows)}", attr="window")
    return mask(len(sinks))


def _strided_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    number(attrs, "local"), number(attrs, "stride", 1), number(attrs, "dense_until"), number(attrs, "last_rows")
    return mask(len(per_head(attrs, "offsets")))


def _union_shape(types: Types, attrs: Attrs) -> Types:
    a, b = over_blocks(types[0], "a", "bool"), over_blocks(types[1], "b", "bool")
    if a != b:
        raise ShapeError(f"masks of {a} and {b} groups do not combine", "b")
    return mask(a)


def _pick_shape(types: Types, attrs: Attrs) -> Types:
    choice = per_head(attrs, "choice")
    if max(choice) >= len(types):
        raise ShapeError(f"choice {max(choice)} of {len(types)} masks", attr="choice")
    for i, t in enumerate(types):
        groups = over_blocks(t, f"masks{i}", "bool")
        if not isinstance(groups, int) or groups < 1 or len(choice) % groups:
            raise ShapeError(f"{len(choice)} heads cannot share {groups} masks", f"masks{i}")
    return mask(len(choice))


def _compact_shape(types: Types, attrs: Attrs) -> Types:
    groups = over_blocks(types[0], "mask", "bool")
    return [TensorType("i32", (QB, groups, KB)), TensorType("i32", (QB, groups))]


define_op(
    "causal_blocks", "kv", shape=_groups_shape(), reference=_causal, attrs=GROUPS, effects=("kv",), flops=no_flops,
    doc="The mask of every block up to the row's own -> bool[QB, G, KB].",
    example="causal_blocks(%kv) {groups = 9}",
)  # fmt: skip
define_op(
    "forced_blocks", "kv", reference=_forced, effects=("kv",), flops=no_flops,
    shape=_groups_shape("sink", "local", "dense_until", "last_rows"),
    attrs={**GROUPS, "sink": AttrSpec(int, 0), "local": AttrSpec(int, 0), **_DENSE},
    doc="The mask of blocks that a selector keeps whatever their scores -> bool[QB, G, KB]: the first sink blocks, the "
    "last local ones with the row's own, and everything for rows that end before position dense_until or hold one of "
    f"the last last_rows tokens that their sequence has in the step. {CAUSAL}",
    example="forced_blocks(%kv) {groups = 9, sink = 1, local = 2}",
)  # fmt: skip
define_op(
    "span_blocks", "kv", shape=_spans_shape, reference=_spans, effects=("kv",), flops=no_flops,
    attrs={"sink": AttrSpec(tuple, required=True), "window": AttrSpec(tuple, required=True), **_DENSE},
    doc="The mask of blocks with a key among the first sink or the last window slots of one of the row's queries -> "
    "bool[QB, H, KB]; both in tokens, per head; window 0: everything. Dense rows as in forced_blocks. " + CAUSAL,
    example="span_blocks(%kv) {sink = [64, 64], window = [1024, 0]}",
)  # fmt: skip
define_op(
    "strided_blocks", "kv", shape=_strided_shape, reference=_strided, effects=("kv",), flops=no_flops,
    attrs={"local": AttrSpec(int, 1), "stride": AttrSpec(int, required=True), "offsets": AttrSpec(tuple, required=True),
           **_DENSE},
    doc="The mask of the last local blocks and every stride-th one: (block + offsets[h]) % stride = 0 -> "
    f"bool[QB, H, KB]. Dense rows as in forced_blocks. {CAUSAL}",
    example="strided_blocks(%kv) {local = 4, stride = 8, offsets = [0, 4]}",
)  # fmt: skip
define_op(
    "union_blocks", "a b", shape=_union_shape, reference=_union, flops=no_flops,
    doc="Blocks that are in one mask or the other -> bool[QB, G, KB].",
    example="union_blocks(%a, %b)",
)  # fmt: skip
define_op(
    "pick_heads", "masks*", shape=_pick_shape, reference=_pick, flops=no_flops,
    attrs={"choice": AttrSpec(tuple, required=True)},
    doc="For head h its row of the mask numbered choice[h] -> bool[QB, H, KB]; a mask with fewer groups is shared by "
    "neighbouring heads.",
    example="pick_heads(%a, %b) {choice = [0, 1, 1, 0]}",
)  # fmt: skip
define_op(
    "compact_blocks", "mask", shape=_compact_shape, reference=_compact, flops=no_flops,
    doc="The blocks of a mask as lists: idx i32[QB, G, KB], ascending, then zeros, and how many count, i32[QB, G].",
    example="compact_blocks(%mask)",
)  # fmt: skip
