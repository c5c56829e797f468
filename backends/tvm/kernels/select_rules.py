"""Rules that choose blocks by score, as ``ir/ops/select_rules.py`` says: exactly its choices, sums in f64."""

from __future__ import annotations

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
    scratch,
    select,
    store,
    when,
)
from fretsaw.backends.tvm.kernels.select_masks import as_byte, byte
from fretsaw.backends.tvm.kernels.select_sort import Order, clean
from fretsaw.backends.tvm.kernels.select_step import Step


@dataclass(frozen=True)
class RuleSpec:
    """One rule.

    Args:
        kind: ``top_k``, ``share``, ``top_p`` or ``above``.
        value: k, density, p or threshold.
    """

    kind: str
    groups: int
    value: float
    name: str = "rule"

    @property
    def everything(self) -> bool:
        """The setting keeps every causal block, whatever the scores."""
        return self.value <= 0 if self.kind == "above" else self.kind != "top_k" and self.value >= 1


@dataclass(frozen=True)
class _Row:
    """The visible part of one row of one group."""

    scores: Buffer
    forced: Buffer
    out: Buffer
    row: Expr
    g: Expr
    count: Expr

    def score(self, j: Expr) -> Expr:
        return clean(load(self.scores, [self.row, self.g, j]))

    def must(self, j: Expr) -> Expr:
        return load(self.forced, [self.row, self.g, j])

    def keep(self, j: Expr, kept: Expr) -> None:
        store(self.out, [self.row, self.g, j], kept)

    def keep_forced(self) -> None:
        with loop(self.count) as j:
            self.keep(j, self.must(j))


def rule(spec: RuleSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``lens``, ``cu`` (:class:`Step`); ``scores f32[QB, G, KB]``; ``forced int8[QB, G, KB]``;
    ``out int8[QB, G, KB]``.
    """
    with kernel(spec.name) as k:
        rows, width = dim("QB"), dim("KB")
        step = Step.declare(k, rows)
        scores = k.arg("scores", (rows, spec.groups, width))
        forced, out = (k.arg(x, (rows, spec.groups, width), "int8") for x in ("forced", "out"))
        with step.each_row() as (row, owner):
            with loop(spec.groups) as g, loop(width) as j:
                store(out, [row, g, j], byte(False))
            with step.used(row, owner) as block:
                order = Order.allocate(width)
                with loop(spec.groups) as g:
                    _choose(spec, _Row(scores, forced, out, row, g, bind(tirx.min(width, block.block + 1))), order)
    return k.func


def _choose(spec: RuleSpec, row: _Row, order: Order) -> None:
    if spec.everything:
        with loop(row.count) as j:
            row.keep(j, byte(True))
    elif spec.kind == "above":
        threshold = tirx.const(spec.value, "float32")
        with loop(row.count) as j:
            row.keep(j, as_byte(tirx.any(row.must(j) != 0, row.score(j) > threshold)))
    elif spec.kind == "top_p":
        _top_p(spec, row, order)
    else:
        _top_k(row, order, _budget(spec, row.count))


def _budget(spec: RuleSpec, count: Expr) -> Expr:
    if spec.kind == "top_k":
        return i64(int(spec.value))
    share = T.ceil(tirx.const(spec.value, "float64") * tirx.Cast("float64", count))
    return bind(tirx.max(i64(1), tirx.Cast("int64", share)))


def _top_k(row: _Row, order: Order, budget: Expr) -> None:
    with when(budget >= row.count), loop(row.count) as j:
        row.keep(j, byte(True))
    with when(budget < row.count):
        row.keep_forced()
        left = scratch((1,), "int64")
        store(left, [0], budget)
        with loop(row.count) as j:
            store(left, [0], load(left, [0]) - tirx.Cast("int64", row.must(j)))
        with when(load(left, [0]) > 0):
            order.sort(row.count, row.score)
            with loop(row.count) as i:
                j = bind(order.at(i))
                take = bind(tirx.Cast("int64", tirx.all(row.must(j) == 0, load(left, [0]) > 0)))
                with T.If(take != 0), T.Then():
                    row.keep(j, byte(True))
                store(left, [0], load(left, [0]) - take)


def _top_p(spec: RuleSpec, row: _Row, order: Order) -> None:
    """Sums go the way of the reference: by index, then by falling score."""
    zero = tirx.const(0.0, "float64")

    def weight(j: Expr) -> Expr:
        x = bind(row.score(j))
        return tirx.Cast("float64", bind(select(x > 0.0, x, tirx.const(0.0, "float32"))))

    row.keep_forced()
    total, mass = scratch((1,), "float64"), scratch((1,), "float64")
    store(total, [0], zero)
    store(mass, [0], zero)
    with loop(row.count) as j:
        w = bind(weight(j))
        store(total, [0], load(total, [0]) + w)
        store(mass, [0], load(mass, [0]) + select(row.must(j) != 0, w, zero))
    wanted = bind(load(total, [0]) * tirx.const(spec.value, "float64"))
    with when(load(mass, [0]) < wanted):
        order.sort(row.count, row.score)
        with loop(row.count) as i:
            j = bind(order.at(i))
            with T.If(tirx.all(row.must(j) == 0, load(mass, [0]) < wanted)), T.Then():
                row.keep(j, byte(True))
                store(mass, [0], load(mass, [0]) + weight(j))
