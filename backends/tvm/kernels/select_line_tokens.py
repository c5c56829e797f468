"""The best columns of a head as single tokens (``line_tokens`` in ``ir/ops/select_lines.py``).

A sequence and head is sorted once; every row then passes over its list and leaves out what it does not see or what
blocks hold already.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

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
from fretsaw.backends.tvm.kernels.select_line_blocks import take
from fretsaw.backends.tvm.kernels.select_masks import number_table
from fretsaw.backends.tvm.kernels.select_sort import Order, clean
from fretsaw.backends.tvm.kernels.select_step import QueryBlock, Step
from fretsaw.ir.kv import BLOCK


@dataclass(frozen=True)
class LineTokenSpec:
    """One kernel.

    Args:
        columns: How many of each head; 0: none.
        first: First columns that are among them in any case.
    """

    columns: tuple[int, ...]
    first: int = 0
    name: str = "line_tokens"


def line_tokens(spec: LineTokenSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``lens``, ``cu`` (:class:`Step`); ``columns f32[B, H, 64 * KB]``; ``mask int8[QB, H, KB]``;
    ``ids i32[QB, H, N]``, N the largest of ``spec.columns``; ``cnt i32[QB, H]``.
    """
    heads, most = len(spec.columns), max(spec.columns)
    with kernel(spec.name) as k:
        rows, width, slots = dim("QB"), dim("KB"), dim("S")
        step = Step.declare(k, rows)
        columns = k.arg("columns", (step.sequences, heads, slots))
        mask = k.arg("mask", (rows, heads, width), "int8")
        ids, cnt = k.arg("ids", (rows, heads, most), "int32"), k.arg("cnt", (rows, heads), "int32")
        owner, budgets = step.owners(), number_table(spec.columns)
        best = workspace((step.sequences, heads, most), "int32")
        found = workspace((step.sequences, heads), "int64")
        with parallel(step.sequences * heads) as task:
            b, h = bind(task // heads), bind(task % heads)
            _sort(spec, step, columns, (best, found), bind(load(budgets, [h])), [b, h], slots)
        with parallel(rows) as row:
            with loop(heads) as h:
                store(cnt, [row, h], i32(0))
                with loop(most) as n:
                    store(ids, [row, h, n], i32(0))
            with step.used(row, owner) as block, loop(heads) as h:
                _keep(block, mask, (best, found), ids, cnt, h)
    return k.func


def _sort(
    spec: LineTokenSpec, step: Step, columns: Buffer, lists: tuple[Buffer, Buffer], budget: Expr, at: list[Expr],
    slots: Expr,
) -> None:  # fmt: skip
    """List the best columns of a sequence and head, ascending."""
    best, found = lists
    end = bind(step.end(at[0]))
    store(found, at, i64(0))
    with when(tirx.all(step.count(at[0]) > 0, budget > 0)):
        order, taken = Order.allocate(slots), workspace((slots,), "int8")
        take(order, taken, lambda c: clean(load(columns, [*at, c])), end, budget, spec.first)
        with loop(end) as c, when(load(taken, [c]) != 0):
            place = bind(load(found, at))
            store(best, [*at, place], tirx.Cast("int32", c))
            store(found, at, place + 1)


def _keep(block: QueryBlock, mask: Buffer, lists: tuple[Buffer, Buffer], ids: Buffer, cnt: Buffer, h: Expr) -> None:
    """Copy what a row sees and blocks do not hold."""
    best, found = lists
    kept = scratch((1,), "int64")
    store(kept, [0], i64(0))
    with loop(bind(load(found, [block.sequence, h]))) as n:
        token = bind(tirx.Cast("int64", load(best, [block.sequence, h, n])))
        with T.If(token < block.last), T.Then(), T.If(load(mask, [block.row, h, token // BLOCK]) == 0), T.Then():
            store(ids, [block.row, h, load(kept, [0])], tirx.Cast("int32", token))
            store(kept, [0], load(kept, [0]) + 1)
    store(cnt, [block.row, h], tirx.Cast("int32", load(kept, [0])))
