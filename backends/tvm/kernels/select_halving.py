"""Key blocks by hierarchical halving (``ir/ops/select_extra.py``, HiP): groups of blocks, each cut in two, the better
halves kept, until every group is one block. A row of a head looks at about 2 k log2(blocks / k) keys."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
    fma,
    fmax,
    i64,
    kernel,
    load,
    loop,
    scratch,
    splat,
    store,
    when,
    workspace,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import reduce_row
from fretsaw.backends.tvm.kernels.select_cache import NEVER, KeyCache
from fretsaw.backends.tvm.kernels.select_masks import byte
from fretsaw.backends.tvm.kernels.select_sort import Order, clean
from fretsaw.backends.tvm.kernels.select_step import QueryBlock
from fretsaw.ir.kv import BLOCK

_ROUNDS = 32  # halvings, enough for 2**32 blocks


@dataclass(frozen=True)
class HalvingSpec:
    """One kernel.

    Args:
        blocks: k, groups and blocks that they end in.
        decode: Look at the keys for sequences with one token in the step, too.
    """

    heads: int
    kv_heads: int
    size: int
    blocks: int
    isa: Isa
    kv: KvType = "f32"
    decode: bool = False
    name: str = "halving_blocks"


@dataclass(frozen=True)
class _Work:
    """Memory of a task: the blocks that may be chosen, groups ``[a, b)`` of them, their halves, and what those are
    worth."""

    free: Buffer
    groups: Buffer
    halves: Buffer
    worth: Buffer
    key: Buffer
    order: Order

    @staticmethod
    def allocate(spec: HalvingSpec, width: Expr) -> _Work:
        k = spec.blocks
        return _Work(
            workspace((width,), "int64"), workspace((k, 2), "int64"), workspace((2 * k, 2), "int64"),
            workspace((2 * k,)), workspace((spec.size,)), Order.allocate(2 * k),
        )  # fmt: skip


def halving(spec: HalvingSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``k_pages``, ``table``, ``lens``, ``cu``, ``q f32[T, H, E]``, ``forced int8[QB, H, KB]``,
    ``layer`` (:class:`KeyCache`); ``out int8[QB, H, KB]``.
    """
    with kernel(spec.name) as k:
        rows, width = dim("QB"), dim("KB")
        more = (("forced", (rows, spec.heads, width), "int8"),)
        cache, q, forced = KeyCache.declare_with(
            k, spec.kv, spec.kv_heads, spec.size, rows, width, spec.heads, more
        )  # fmt: skip
        out = k.arg("out", (rows, spec.heads, width), "int8")
        with cache.step.each_row() as (row, owner):
            with loop(spec.heads) as h, loop(width) as j:
                store(out, [row, h, j], byte(False))
            with cache.step.used(row, owner) as block:
                work = _Work.allocate(spec, width)
                visible = bind(tirx.min(width, block.block + 1))
                with loop(spec.heads) as h:
                    _choose(spec, cache, q, forced[0], out, work, block, h, visible)
    return k.func


def _choose(
    spec: HalvingSpec, cache: KeyCache, q: Buffer, forced: Buffer, out: Buffer, work: _Work, block: QueryBlock,
    h: Expr, visible: Expr,
) -> None:  # fmt: skip
    count = scratch((1,), "int64")
    store(count, [0], i64(0))
    with loop(visible) as j:
        must = bind(load(forced, [block.row, h, j]))
        store(out, [block.row, h, j], must)
        store(work.free, [load(count, [0])], j)
        store(count, [0], load(count, [0]) + tirx.Cast("int64", must == 0))
    free = bind(load(count, [0]))
    with when(free <= spec.blocks), loop(visible) as j:
        store(out, [block.row, h, j], byte(True))
    with when(free > spec.blocks):
        _cut(spec, work, free)
        with loop(_ROUNDS):
            widest = scratch((1,), "int64")
            store(widest, [0], i64(0))
            with loop(spec.blocks) as g:
                size = load(work.groups, [g, 1]) - load(work.groups, [g, 0])
                store(widest, [0], tirx.max(load(widest, [0]), size))
            with when(load(widest, [0]) > 1):
                _halve(spec, cache, q, work, block, h)
        with loop(spec.blocks) as g:
            store(out, [block.row, h, load(work.free, [load(work.groups, [g, 0])])], byte(True))


def _cut(spec: HalvingSpec, work: _Work, free: Expr) -> None:
    """Cut the free blocks into groups as equal as can be: bounds are rounded, halves to even."""
    step = bind(tirx.Cast("float64", free) / tirx.const(float(spec.blocks), "float64"))

    def bound(g: Expr) -> Expr:
        exact = tirx.Cast("float64", g) * step
        near = tirx.call_llvm_pure_intrin("float64", "llvm.rint", exact)
        return T.Select(g == spec.blocks, free, tirx.Cast("int64", bind(near)))

    with loop(spec.blocks) as g:
        store(work.groups, [g, 0], bound(g))
        store(work.groups, [g, 1], bound(g + 1))


def _halve(spec: HalvingSpec, cache: KeyCache, q: Buffer, work: _Work, block: QueryBlock, h: Expr) -> None:
    count = scratch((1,), "int64")
    store(count, [0], i64(0))

    def half(a: Expr, b: Expr) -> None:
        at = bind(load(count, [0]))
        store(work.halves, [at, 0], a)
        store(work.halves, [at, 1], b)
        store(count, [0], at + 1)

    with loop(spec.blocks) as g:
        a, b = (bind(load(work.groups, [g, i])) for i in range(2))
        middle = bind(a + (b - a + 1) // 2)
        half(a, middle)
        with when(middle < b):
            half(middle, b)
    halves = bind(load(count, [0]))
    with loop(halves) as i:
        store(work.worth, [i], _worth(spec, cache, q, work, block, h, bind(load(work.halves, [i, 0]))))
    work.order.sort(halves, lambda i: load(work.worth, [i]))
    # Of the best, mark the worth of those that stay; then take them in their order.
    with loop(halves) as i:
        store(work.worth, [work.order.at(i)], T.Select(i < spec.blocks, splat(1.0, 1), splat(0.0, 1)))
    store(count, [0], i64(0))
    with loop(halves) as i, when(load(work.worth, [i]) > 0.0):
        for side in range(2):
            store(work.groups, [load(count, [0]), side], load(work.halves, [i, side]))
        store(count, [0], load(count, [0]) + 1)


def _worth(spec: HalvingSpec, cache: KeyCache, q: Buffer, work: _Work, block: QueryBlock, h: Expr, first: Expr) -> Expr:
    """Return the largest product of every second query with the middle key of a half's first block."""
    best = scratch((1,))
    store(best, [0], splat(NEVER, 1))
    with when(block.end - block.start > (0 if spec.decode else 1)):
        place = bind(load(work.free, [first]) * BLOCK + (BLOCK // 2 - 1))
        place = bind(tirx.min(place, block.end - 1))
        page = cache.page(block.sequence, bind(h * spec.kv_heads // spec.heads), place // BLOCK)
        with loop(spec.size) as e:
            store(work.key, [e], cache.keys(page, e, bind(place % BLOCK)))
        # Rows 1, 3, ...; a row alone stands for itself.
        with loop(T.Select(block.count > 1, block.count // 2, i64(1))) as r:
            token = bind(block.token + tirx.min(2 * r + 1, block.count - 1))

            def step(s: Expr, c: Expr, n: int) -> Expr:
                return fma(load(q, [token, h, c], n), load(work.key, [c], n), s)

            store(best, [0], fmax(bind(reduce_row(spec.size, spec.isa.lanes, step)), load(best, [0])))
    return clean(load(best, [0]))
