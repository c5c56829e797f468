"""Blocks of the best columns and diagonals (``ir/ops/select_lines.py``).

What a key block has from columns, and what lies m blocks before the diagonal has from diagonals, is the same for all
rows of a head: both are found once, after a sort of the lines, and every row combines them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
    i64,
    kernel,
    load,
    loop,
    parallel,
    scratch,
    select,
    splat,
    store,
    when,
    workspace,
)
from fretsaw.backends.tvm.kernels.select_cache import NEVER, fill
from fretsaw.backends.tvm.kernels.select_masks import as_byte, byte
from fretsaw.backends.tvm.kernels.select_sort import Order, clean
from fretsaw.backends.tvm.kernels.select_step import Step
from fretsaw.ir.kv import BLOCK

_F64 = "float64"


@dataclass(frozen=True)
class LineBlockSpec:
    """One kernel.

    Args:
        kind: ``lines`` (a mask), ``scores``, or ``flex`` (a mask).
        budgets: ``lines``, ``scores``: columns and diagonals that count.
        kept: ``lines``, ``scores``: first columns and diagonals that count in any case.
        gamma, least, most: ``flex``: share of the mass, blocks of either (``most`` 0: no limit).
    """

    kind: str
    heads: int
    budgets: tuple[int, int] = (0, 0)
    kept: tuple[int, int] = (0, 0)
    gamma: float = 0.0
    least: int = 1
    most: int = 0
    name: str = "line_blocks"


def line_blocks(spec: LineBlockSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``lens``, ``cu`` (:class:`Step`); ``columns`` and ``diagonals f32[B, H, 64 * KB]``;
    ``forced int8[QB, H, KB]`` unless ``scores``; ``out int8[QB, H, KB]``, with ``scores`` f32.
    """
    heads = spec.heads
    with kernel(spec.name) as k:
        rows, width, slots = dim("QB"), dim("KB"), dim("S")
        step = Step.declare(k, rows)
        lines = [k.arg(x, (step.sequences, heads, slots)) for x in ("columns", "diagonals")]
        forced = None if spec.kind == "scores" else k.arg("forced", (rows, heads, width), "int8")
        out = k.arg("out", (rows, heads, width), "float32" if forced is None else "int8")
        owner = step.owners()
        # [columns by block, diagonals by distance in blocks]: what has been found there; a diagonal may touch one more.
        found = workspace((step.sequences, heads, 2, width + 1), _F64)
        with parallel(step.sequences * heads) as task:
            b, h = bind(task // heads), bind(task % heads)
            _find(spec, step, lines, found, b, h, slots)
        with parallel(rows) as row:
            with loop(heads) as h:
                if forced is None:
                    fill(out, [row, h], i64(0), width, NEVER)
                else:
                    with loop(width) as j:
                        store(out, [row, h, j], byte(False))
            with step.used(row, owner) as block, loop(heads) as h, loop(tirx.min(width, block.block + 1)) as j:
                places = (i64(0), j), (i64(1), block.block - j)
                column, diagonal = (bind(load(found, [block.sequence, h, i, at])) for i, at in places)
                total = bind(column + diagonal)
                if forced is None:
                    store(out, [row, h, j], tirx.Cast("float32", total))
                else:
                    kept = tirx.any(total > tirx.const(0.0, _F64), load(forced, [row, h, j]) != 0)
                    store(out, [row, h, j], as_byte(kept))
    return k.func


def _find(spec: LineBlockSpec, step: Step, lines: list[Buffer], found: Buffer, b: Expr, h: Expr, slots: Expr) -> None:
    with loop(found.ty.shape[3]) as j:
        for i in range(2):
            store(found, [b, h, i, j], tirx.const(0.0, _F64))
    end = bind(step.end(b))
    with when(step.count(b) > 0):
        order, taken = Order.allocate(slots), workspace((slots,), "int8")
        for i in range(2):

            def score(c: Expr, i: int = i) -> Expr:
                return clean(load(lines[i], [b, h, c]))

            if spec.kind == "flex":
                _flex(spec, order, score, found, [b, h, i64(i)], end)
                continue
            take(order, taken, score, end, spec.budgets[i], spec.kept[i])
            with loop(end) as c, when(load(taken, [c]) != 0):
                worth = bind(_weight(score(c)) if spec.kind == "scores" else tirx.const(1.0, _F64))
                at = bind(c // BLOCK)
                store(found, [b, h, i64(i), at], load(found, [b, h, i64(i), at]) + worth)
                if i:  # a diagonal that does not pass through the corners of blocks touches two
                    with when(c % BLOCK != 0):
                        store(found, [b, h, i64(i), at + 1], load(found, [b, h, i64(i), at + 1]) + worth)


def take(order: Order, taken: Buffer, score: Callable[[Expr], Expr], end: Expr, budget: Expr | int, kept: int) -> None:
    """Mark the first ``kept`` lines, and the best others until there are ``budget``."""
    budget = i64(budget) if isinstance(budget, int) else budget
    with loop(end) as c:
        store(taken, [c], as_byte(tirx.any(c < kept, end <= budget)))
    with when(tirx.all(end > budget, budget > kept)):
        order.sort(end, score)
        left = scratch((1,), "int64")
        store(left, [0], budget - kept)
        with loop(end) as n:
            c = bind(order.at(n))
            with T.If(tirx.all(c >= kept, load(left, [0]) > 0)), T.Then():
                store(taken, [c], byte(True))
                store(left, [0], load(left, [0]) - 1)


def _weight(x: Expr) -> Expr:
    """Return what a line counts: its score in f64, nothing where it is NaN."""
    x = bind(x)
    return tirx.Cast(_F64, bind(select(x > splat(0.0, 1), x, splat(0.0, 1))))


def _flex(
    spec: LineBlockSpec, order: Order, score: Callable[[Expr], Expr], found: Buffer, at: list[Expr], end: Expr
) -> None:
    """Mark the best blocks of lines, the first always, as many as the fewest lines with the wanted mass would fill."""
    zero = tirx.const(0.0, _F64)
    blocks = bind((end + BLOCK - 1) // BLOCK)
    total, mass, count = scratch((1,), _F64), scratch((1,), _F64), scratch((1,), "int64")
    store(total, [0], zero)
    store(mass, [0], zero)
    store(count, [0], i64(1))
    pooled = workspace((found.ty.shape[3],))
    with loop(blocks) as j:
        own = scratch((1,), _F64)
        store(own, [0], zero)
        with loop(tirx.min(i64(BLOCK), end - j * BLOCK)) as c:
            store(own, [0], load(own, [0]) + _weight(score(j * BLOCK + c)))
        store(pooled, [j], tirx.Cast("float32", load(own, [0])))
        store(total, [0], load(total, [0]) + load(own, [0]))
    wanted = bind(load(total, [0]) * tirx.const(spec.gamma, _F64))
    order.sort(end, score)
    with loop(end) as n:
        store(mass, [0], load(mass, [0]) + _weight(score(order.at(n))))
        with T.If(load(mass, [0]) <= wanted), T.Then():
            store(count, [0], load(count, [0]) + 1)
    budget = tirx.max(load(count, [0]) // BLOCK + 1, i64(spec.least))
    budget = bind(tirx.min(budget, i64(spec.most)) if spec.most else budget)
    one = tirx.const(1.0, _F64)
    if spec.gamma >= 1:
        with loop(blocks) as j:
            store(found, [*at, j], one)
        return
    store(found, [*at, i64(0)], one)
    order.sort(blocks, lambda j: load(pooled, [j]))
    left = scratch((1,), "int64")
    store(left, [0], budget - 1)
    with loop(blocks) as n:
        j = bind(order.at(n))
        with T.If(tirx.all(j > 0, load(left, [0]) > 0)), T.Then():
            store(found, [*at, j], one)
            store(left, [0], load(left, [0]) - 1)
