"""Masks over blocks, ``int8[QB, G, KB]`` of 0 and 1, and the lists that they become. Meaning: ``ir/ops/select.py``.

Everything here is a few operations per element of a mask, a 4096th of what attention does for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
    i32,
    i64,
    kernel,
    load,
    loop,
    parallel,
    scratch,
    store,
    when,
    workspace,
)
from fretsaw.backends.tvm.kernels.select_step import QueryBlock, Step
from fretsaw.ir.kv import BLOCK


@dataclass(frozen=True)
class MaskSpec:
    """One mask that needs no scores.

    Args:
        kind: ``causal``, ``prompt``, ``earlier``, ``forced``, ``span``, ``elastic`` or ``strided``.
        sink: ``forced``, ``elastic``: first blocks; ``span``: first tokens of each head.
        window: ``span``: last tokens of each head, 0 for all; ``elastic``: alpha, and beta in eighths.
        local: ``forced``, ``strided``: last blocks.
        stride, offsets: ``strided``.
        dense_until, last_rows: rows that keep everything.
    """

    kind: str
    groups: int
    sink: tuple[int, ...] = (0,)
    window: tuple[int, ...] = ()
    local: int = 0
    stride: int = 1
    offsets: tuple[int, ...] = ()
    dense_until: int = 0
    last_rows: int = 0
    name: str = "mask"

    def dense(self, block: QueryBlock) -> Expr:
        """Whether a row keeps everything."""
        if self.kind == "causal":
            return tirx.const(True, "bool")
        if self.kind == "prompt":
            return tirx.Not(block.decodes)
        return tirx.any(block.last <= self.dense_until, block.last > block.end - self.last_rows)


def byte(value: bool) -> Expr:
    """Return 0 or 1 as an element of a mask."""
    return tirx.const(int(value), "int8")


def as_byte(cond: Expr) -> Expr:
    """Return a condition as an element of a mask."""
    return tirx.Cast("int8", cond)


def mask(spec: MaskSpec) -> tirx.PrimFunc:
    """Return the PrimFunc. Arguments in order: ``lens``, ``cu`` (:class:`Step`); ``out int8[QB, G, KB]``."""
    with kernel(spec.name) as k:
        rows, width = dim("QB"), dim("KB")
        step = Step.declare(k, rows)
        out = k.arg("out", (rows, spec.groups, width), "int8")
        keeps = _rule(spec)
        with step.each_row() as (row, owner):
            with loop(spec.groups) as g, loop(width) as j:
                store(out, [row, g, j], byte(False))
            with step.used(row, owner) as block:
                dense = bind(tirx.Cast("int64", spec.dense(block)))
                with loop(spec.groups) as g:
                    kept = keeps(block, g)
                    with loop(tirx.min(width, block.block + 1)) as j:
                        store(out, [row, g, j], as_byte(tirx.any(dense != 0, kept(j))))
    return k.func


def number_table(numbers: tuple[int, ...]) -> Buffer:
    """Write numbers that an index into them is known for at run time only: int64[n]."""
    table = workspace((len(numbers),), "int64")
    for i, n in enumerate(numbers):
        store(table, [i], i64(n))
    return table


def _rule(spec: MaskSpec) -> Callable[[QueryBlock, Expr], Callable[[Expr], Expr]]:
    """Return ``(block, group) -> (key block -> kept)``."""
    if spec.kind == "span":
        sinks, windows = number_table(spec.sink), number_table(spec.window)

        def span(block: QueryBlock, g: Expr) -> Callable[[Expr], Expr]:
            sink, window = bind(load(sinks, [g])), bind(load(windows, [g]))
            # The block's last key is less than ``window`` slots before the first query; none if the window is 0.
            near = bind(tirx.Select(window == 0, i64(0), block.first - window - (BLOCK - 1)))
            return lambda j: tirx.any(window == 0, j * BLOCK > near, j * BLOCK < sink)

        return span
    if spec.kind == "strided":
        offsets = number_table(spec.offsets)

        def strided(block: QueryBlock, g: Expr) -> Callable[[Expr], Expr]:
            offset = bind(load(offsets, [g]))
            return lambda j: tirx.any(block.block - j < spec.local, (j + offset) % spec.stride == 0)

        return strided
    if spec.kind == "prompt":
        return lambda block, g: lambda j: tirx.const(False, "bool")
    if spec.kind == "earlier":
        return lambda block, g: lambda j: j * BLOCK < block.start
    if spec.kind == "elastic":
        alpha, beta = spec.window

        def elastic(block: QueryBlock, g: Expr) -> Callable[[Expr], Expr]:
            tokens = bind(alpha + (beta * (block.block + 1) * BLOCK + 7) // 8)
            near = bind(tirx.max(i64(1), (tokens + BLOCK - 1) // BLOCK))
            return lambda j: tirx.any(block.block - j < near, j < spec.sink[0])

        return elastic
    return lambda block, g: lambda j: tirx.any(j < spec.sink[0], j > block.block - spec.local)


def union(groups: int, name: str = "union_blocks") -> tirx.PrimFunc:
    """Return the PrimFunc: ``a``, ``b``, ``out``, all ``int8[QB, G, KB]``."""
    with kernel(name) as k:
        rows, width = dim("QB"), dim("KB")
        a, b, out = (k.arg(x, (rows, groups, width), "int8") for x in ("a", "b", "out"))
        with parallel(rows) as row, loop(groups) as g, loop(width) as j:
            store(out, [row, g, j], tirx.max(load(a, [row, g, j]), load(b, [row, g, j])))
    return k.func


def pick(choice: tuple[int, ...], groups: tuple[int, ...], name: str = "pick_heads") -> tirx.PrimFunc:
    """Return the PrimFunc: masks ``int8[QB, groups[i], KB]`` in order, then ``out int8[QB, H, KB]``."""
    heads = len(choice)
    with kernel(name) as k:
        rows, width = dim("QB"), dim("KB")
        masks = [k.arg(f"m{i}", (rows, g, width), "int8") for i, g in enumerate(groups)]
        out = k.arg("out", (rows, heads, width), "int8")
        with parallel(rows) as row:
            for h, c in enumerate(choice):
                with loop(width) as j:
                    store(out, [row, h, j], load(masks[c], [row, h * groups[c] // heads, j]))
    return k.func


def compact(groups: int, name: str = "compact_blocks") -> tirx.PrimFunc:
    """Return the PrimFunc: ``mask int8[QB, G, KB]``, ``idx i32[QB, G, KB]``, ``cnt i32[QB, G]``."""
    with kernel(name) as k:
        rows, width = dim("QB"), dim("KB")
        chosen = k.arg("mask", (rows, groups, width), "int8")
        idx, cnt = k.arg("idx", (rows, groups, width), "int32"), k.arg("cnt", (rows, groups), "int32")
        with parallel(rows) as row:
            found = scratch((1,), "int64")
            with loop(groups) as g:
                store(found, [0], i64(0))
                with loop(width) as j:  # written in any case, and kept if it counts: no branch
                    store(idx, [row, g, load(found, [0])], tirx.Cast("int32", j))
                    store(found, [0], load(found, [0]) + tirx.Cast("int64", load(chosen, [row, g, j])))
                kept = bind(load(found, [0]))
                store(cnt, [row, g], tirx.Cast("int32", kept))
                with loop(width - kept) as j:
                    store(idx, [row, g, kept + j], i32(0))
    return k.func


def block_tokens(groups: int, name: str = "block_tokens") -> tirx.PrimFunc:
    """Return the PrimFunc: ``lens``, ``cu`` (:class:`Step`); ``far`` and ``mask int8[QB, G, KB]``;
    ``ids i32[QB, G, 64 * KB]``; ``cnt i32[QB, G]``."""
    with kernel(name) as k:
        rows, width, slots = dim("QB"), dim("KB"), dim("S")
        step = Step.declare(k, rows)
        far, read = (k.arg(x, (rows, groups, width), "int8") for x in ("far", "mask"))
        ids, cnt = k.arg("ids", (rows, groups, slots), "int32"), k.arg("cnt", (rows, groups), "int32")
        with step.each_row() as (row, owner):
            with loop(groups) as g:
                store(cnt, [row, g], i32(0))
                with loop(slots) as s:
                    store(ids, [row, g, s], i32(0))
            with step.used(row, owner) as block, loop(groups) as g:
                found = scratch((1,), "int64")
                store(found, [0], i64(0))
                with loop(tirx.min(width, block.block + 1)) as j:
                    wanted = tirx.all(load(far, [row, g, j]) != 0, load(read, [row, g, j]) == 0)
                    with when(wanted), loop(tirx.min(i64(BLOCK), block.last - j * BLOCK)) as s:
                        store(ids, [row, g, load(found, [0])], tirx.Cast("int32", j * BLOCK + s))
                        store(found, [0], load(found, [0]) + 1)
                store(cnt, [row, g], tirx.Cast("int32", load(found, [0])))
    return k.func
