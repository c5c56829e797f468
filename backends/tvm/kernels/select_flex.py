"""FlexPrefill's switch (``ir/ops/select_extra.py``): heads whose pooled map resembles the true one take it.

A task is one head of one sequence. Products are in f32, everything made of them in f64; entries of the pooled map are
put in order as f32, so of masses that differ by less than that the first comes first.
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
    fma,
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
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import reduce_row
from fretsaw.backends.tvm.kernels.select_masks import as_byte
from fretsaw.backends.tvm.kernels.select_sort import Order
from fretsaw.backends.tvm.kernels.select_step import Step
from fretsaw.ir.kv import BLOCK
from fretsaw.ir.ops.select_extra import TINY

_F64 = "float64"


@dataclass(frozen=True)
class FlexSpec:
    """One kernel."""

    heads: int
    kv_heads: int
    size: int
    scale: float
    gamma: float
    tau: float
    isa: Isa
    name: str = "flex_switch"


@dataclass(frozen=True)
class _Task:
    """One head of one sequence: its rows in the step (the first one's block is ``block``), and its n blocks."""

    spec: FlexSpec
    b: Expr
    h: Expr
    row: Expr
    block: Expr
    rows: Expr
    n: Expr
    masses: Buffer  # f64[QB, KB], logits and then masses, 0 after a row's own block
    true: Buffer  # f64[KB]


def flex_switch(spec: FlexSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``lens``, ``cu`` (:class:`Step`); ``columns f32[B, H, 64 * KB]``; ``qp f32[QB, H, E]``;
    ``kp f32[B, K, KB, E]``; ``lines``, ``few`` and ``out int8[QB, H, KB]``.
    """
    heads = spec.heads
    with kernel(spec.name) as k:
        rows, width = dim("QB"), dim("KB")
        step = Step.declare(k, rows)
        columns = k.arg("columns", (step.sequences, heads, dim("S")))
        qp = k.arg("qp", (rows, heads, spec.size))
        kp = k.arg("kp", (step.sequences, spec.kv_heads, width, spec.size))
        lines, few, out = (k.arg(x, (rows, heads, width), "int8") for x in ("lines", "few", "out"))
        with parallel(rows) as row, loop(heads) as h, loop(width) as j:
            store(out, [row, h, j], load(lines, [row, h, j]))
        with parallel(step.sequences * heads) as task:
            b, h = bind(task // heads), bind(task % heads)
            with when(step.count(b) > 0):
                own = _Task(
                    spec,
                    b,
                    h,
                    bind(step.first_row(b)),
                    bind(step.before(b) // BLOCK),
                    bind(step.blocks(b)),
                    bind(tirx.min(width, (step.end(b) + BLOCK - 1) // BLOCK)),
                    workspace((rows, width), _F64),
                    workspace((width,), _F64),
                )
                order = Order.allocate(rows * width)
                total = _columns(own, columns)
                _map(own, qp, kp)
                with when(total > _real(0.0)), when(_distance(own, total) < _real(spec.tau)):
                    _take(own, order, few, out)
    return k.func


def _real(x: float) -> Expr:
    return tirx.const(x, _F64)


def _sum(count: Expr, term: Callable[[Expr], Expr]) -> Expr:
    total = scratch((1,), _F64)
    store(total, [0], _real(0.0))
    with loop(count) as i:
        store(total, [0], load(total, [0]) + term(i))
    return bind(load(total, [0]))


def _columns(own: _Task, columns: Buffer) -> Expr:
    """Add up columns by block; return the sum of all."""
    with loop(own.n) as j:
        found = _sum(i64(BLOCK), lambda c: bind(tirx.Cast(_F64, load(columns, [own.b, own.h, j * BLOCK + c]))))
        store(own.true, [j], found)
    return _sum(own.n, lambda j: load(own.true, [j]))


def _map(own: _Task, qp: Buffer, kp: Buffer) -> None:
    """Write down the pooled map: each row a softmax up to its own block."""
    spec, g = own.spec, bind(own.h * own.spec.kv_heads // own.spec.heads)
    with loop(own.rows) as r:
        visible = bind(tirx.min(own.n, own.block + r + 1))
        best = scratch((1,), _F64)
        store(best, [0], _real(float("-inf")))
        with loop(own.n) as j:
            store(own.masses, [r, j], _real(0.0))
        with loop(visible) as j:

            def step(s: Expr, c: Expr, n: int) -> Expr:
                return fma(load(qp, [own.row + r, own.h, c], n), load(kp, [own.b, g, j, c], n), s)

            logit = bind(tirx.Cast(_F64, reduce_row(spec.size, spec.isa.lanes, step)) * _real(spec.scale))
            store(own.masses, [r, j], logit)
            store(best, [0], tirx.Select(logit > load(best, [0]), logit, load(best, [0])))
        top = bind(load(best, [0]))

        def weigh(j: Expr) -> Expr:
            e = bind(T.exp(load(own.masses, [r, j]) - top))
            store(own.masses, [r, j], e)
            return e

        total = _sum(visible, weigh)
        with loop(visible) as j:
            store(own.masses, [r, j], load(own.masses, [r, j]) / total)


def _distance(own: _Task, total: Expr) -> Expr:
    """Return the square root of the Jensen-Shannon divergence of the last row's masses and the columns'."""

    def term(j: Expr) -> Expr:
        a, b = bind(load(own.masses, [own.rows - 1, j])), bind(load(own.true, [j]) / total)
        middle = bind(_real(0.5) * (a + b) + _real(TINY))
        parts = [bind(p * T.log(bind((p + _real(TINY)) / middle))) for p in (a, b)]
        return bind(parts[0] + parts[1])

    half = bind(_sum(own.n, term) * _real(0.5))
    return bind(T.sqrt(bind(tirx.Select(half > _real(0.0), half, _real(0.0)))))


def _take(own: _Task, order: Order, few: Buffer, out: Buffer) -> None:
    """Replace the lines by the few ones and the heaviest entries of the map, all rows together."""
    with loop(own.rows) as r, loop(own.n) as j:
        store(out, [own.row + r, own.h, j], load(few, [own.row + r, own.h, j]))
    wanted = bind(tirx.Cast(_F64, own.rows) * _real(own.spec.gamma))
    count = bind(own.rows * own.n)
    order.sort(count, lambda i: tirx.Cast("float32", load(own.masses, [i // own.n, i % own.n])))
    kept = scratch((1,), _F64)
    store(kept, [0], _real(0.0))
    with loop(count) as i:
        at = bind(order.at(i))
        r, j = bind(at // own.n), bind(at % own.n)
        mass = bind(load(own.masses, [r, j]))
        store(kept, [0], load(kept, [0]) + mass)
        old = bind(load(out, [own.row + r, own.h, j]))
        take = tirx.all(load(kept, [0]) <= wanted, mass > _real(0.0))
        store(out, [own.row + r, own.h, j], tirx.max(old, as_byte(take)))
