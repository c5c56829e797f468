"""Online softmax over one cache page for a block of query rows: the arithmetic that all of attention shares.

Scores are kept in units of log 2, so that a weight is 2**(score - maximum): one multiplication less per slot.
For a row, the sequence of operations depends only on the row's own slots: scores by one chain over e, the page
maximum, lane-wise sums folded as a tree, one chain over slots for the values. A page in which a row sees nothing
leaves its state unchanged bit for bit. Prefill, chunks and decode therefore agree exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    fma,
    fmax,
    i64,
    lanes_of,
    load,
    loop,
    scratch,
    select,
    splat,
    store,
    unroll,
    vtype,
    when,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.kv_pages import KvPages

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
EMPTY = -1e30  # running maximum before the first visible slot; finite, so that EMPTY - EMPTY is 0


def with_sink(top: Expr, total: Expr, sinks: Buffer | None, head: Expr) -> tuple[Expr, Expr, Expr]:
    """A row's maximum (in units of log 2) and its sum with the head's sink in it, if there are sinks, and the factor
    that brings its weighted values to that maximum."""
    if sinks is None:
        return top, total, splat(1.0, 1)
    sink = bind(load(sinks, [head]) * splat(LOG2E, 1))
    larger = bind(fmax(top, sink))
    keep = math.exp2_nonpositive(bind(top - larger))
    return larger, bind(fma(total, keep, math.exp2_nonpositive(bind(sink - larger)))), keep


def fold(value: Expr, op: Callable[[Expr, Expr], Expr]) -> Expr:
    """Reduce the lanes of a vector to a scalar by halving."""
    lanes = lanes_of(value)
    while lanes > 2:
        lanes //= 2
        half = vtype("float32", lanes)
        value = bind(op(bind(T.vectorlow(half, value)), bind(T.vectorhigh(half, value))))
    if lanes == 1:
        return value
    return bind(op(bind(tirx.Shuffle([value], [0])), bind(tirx.Shuffle([value], [1]))))


def column_tiles(
    width: int, lanes: int, vectors: int, body: Callable[[Expr, list[int]], None], wanted: Expr | None = None
) -> None:
    """Cover ``width`` columns by ``body(first column, lanes of each vector)``, ``vectors`` at a time.

    Only the first ``wanted`` columns have to be covered, where given.
    """
    step = lanes * vectors
    if width // step:
        tiles = i64(width // step)
        with loop(tiles if wanted is None else bind(tirx.min(tiles, (wanted + step - 1) // step))) as n:
            body(bind(n * step), [lanes] * vectors)
    start, rest, widths = width // step * step, width % step, []
    while rest:
        while lanes > rest:
            lanes //= 2
        widths.append(lanes)
        rest -= lanes
    for i in range(0, len(widths), vectors):
        body(i64(start), widths[i : i + vectors])
        start += sum(widths[i : i + vectors])


@dataclass(frozen=True)
class State:
    """Running softmax state of query rows: maximum, sum and weighted values, plus the scaled queries."""

    q: Buffer  # [rows, E]
    values: Buffer  # [rows, Ev]
    top: Buffer  # [rows]
    total: Buffer  # [rows]
    scores: Buffer  # [rows, P], of the current page, and then the weights
    shrink: Buffer  # [rows], factor of older sums and values


@dataclass(frozen=True)
class PageBlock:
    """Emits the step of ``rows`` query rows over one page."""

    isa: Isa
    rows: int
    head_dim: int
    value_dim: int
    page: int
    soft_cap: float
    pages: KvPages

    def _vectors(self, width: int) -> int:
        budget = (12 if self.isa.lanes == 8 else 24) // self.rows
        best = 1
        while best * 2 <= budget and best * 2 * self.isa.lanes <= width:
            best *= 2
        return best

    def weigh(
        self, state: State, row0: Expr, page: Expr, base: Expr, low: list[Expr], high: list[Expr],
        sink: list[Expr] | None = None,
    ) -> None:  # fmt: skip
        """First half of a step over one page: weights of rows ``row0 ...`` into ``state.scores``.

        Row r sees the slots in ``[low[r], high[r])``, the page starts at ``base``. With ``sink`` it sees those below
        ``sink[r]`` too, if they are below ``high[r]``.
        """
        self._scores(state, row0, page, self._visible(base, high))
        # Bounds do not fall from row to row: the first row ends first, the last one starts last. Windows of several
        # heads may, and sinks are anywhere.
        early = [base < low[-1]]
        if sink is not None:
            early = [tirx.all(base < lo, base + self.page > s) for lo, s in zip(low, sink, strict=True)]
        with when(tirx.any(*early, base + self.page > high[0])):
            self._mask(state, row0, base, low, high, sink)
        self._maxima(state, row0)
        self._weights(state, row0, page)

    def gather(self, state: State, row0: Expr, page: Expr, base: Expr, high: list[Expr]) -> None:
        """Second half: add the page's weighted values to those of the rows."""
        self._values(state, row0, page, self._visible(base, high))

    def _visible(self, base: Expr, high: list[Expr]) -> Expr:
        return bind(tirx.min(i64(self.page), high[-1] - base))

    def _scores(self, state: State, row0: Expr, page: Expr, visible: Expr) -> None:
        """Scores of the visible slots; what is left of the page is masked afterwards."""

        def tile(col: Expr, widths: list[int]) -> None:
            acc = [scratch((len(widths), self.isa.lanes)) for _ in range(self.rows)]
            for row in acc:
                for v, w in enumerate(widths):
                    store(row, [v, 0], splat(0.0, w))

            def at(e: Expr) -> None:
                keys = [bind(self.pages.keys(page, e, col + v * self.isa.lanes, w)) for v, w in enumerate(widths)]
                for r in range(self.rows):
                    for v, w in enumerate(widths):
                        old = load(acc[r], [v, 0], w)
                        store(acc[r], [v, 0], fma(splat(load(state.q, [row0 + r, e]), w), keys[v], old))

            unrolled(self.head_dim, at)
            scales = [self.pages.key_scales(page, col + v * self.isa.lanes, w) for v, w in enumerate(widths)]
            scales = [s if s is None else bind(s) for s in scales]
            for r in range(self.rows):
                for v, w in enumerate(widths):
                    value = load(acc[r], [v, 0], w)
                    scale = scales[v]
                    if scale is not None:
                        value = bind(value * scale)
                    if self.soft_cap:
                        value = math.soft_cap(value, self.soft_cap, LOG2E)
                    store(state.scores, [row0 + r, col + v * self.isa.lanes], value)

        column_tiles(self.page, self.isa.lanes, self._vectors(self.page), tile, visible)

    def _mask(
        self, state: State, row0: Expr, base: Expr, low: list[Expr], high: list[Expr], sink: list[Expr] | None
    ) -> None:
        lanes = self.isa.lanes

        def limit(value: Expr) -> Expr:
            # Relative to the page and clamped, so that it fits in 32 bits.
            near = tirx.max(tirx.min(value - base, i64(self.page)), i64(0))
            return T.broadcast(bind(tirx.Cast("int32", near)), lanes)

        bounds = [(bind(limit(lo)), bind(limit(hi))) for lo, hi in zip(low, high, strict=True)]
        first = [bind(limit(s)) for s in sink or ()]
        with loop(self.page // lanes) as v:
            slot = bind(T.ramp(tirx.Cast("int32", v * lanes), 1, lanes))
            for r, (lo, hi) in enumerate(bounds):
                old = bind(load(state.scores, [row0 + r, v * lanes], lanes))
                seen = bind(select(slot < hi, old, splat(float("-inf"), lanes)))
                late = select(slot >= lo, seen, splat(float("-inf"), lanes))
                if first:
                    late = select(slot < first[r], seen, bind(late))
                store(state.scores, [row0 + r, v * lanes], late)

    # The rows of a block go through each phase together: a row's own chain of operations is long, and the rows
    # fill each other's gaps.

    def _maxima(self, state: State, row0: Expr) -> None:
        """Raise the running maxima, and say by how much older sums and values shrink."""
        lanes, rows = self.isa.lanes, range(self.rows)
        best = [bind(load(state.scores, [row0 + r, 0], lanes)) for r in rows]
        for v in range(1, self.page // lanes):
            best = [bind(fmax(load(state.scores, [row0 + r, v * lanes], lanes), best[r])) for r in rows]
        for r in rows:
            old = bind(load(state.top, [row0 + r]))
            top = bind(fmax(fold(best[r], fmax), old))
            store(state.top, [row0 + r], top)
            store(state.shrink, [row0 + r], old - top)
        for r in rows:
            store(state.shrink, [row0 + r], math.exp2_nonpositive(load(state.shrink, [row0 + r])))

    def _weights(self, state: State, row0: Expr, page: Expr) -> None:
        """Turn scores into weights, and add them to the running sums. What is left has the values' scales in it."""
        lanes, rows = self.isa.lanes, range(self.rows)
        sums = scratch((self.rows, lanes))
        tops = [bind(load(state.top, [row0 + r])) for r in rows]
        for r in rows:
            store(sums, [r, 0], splat(0.0, lanes))
        with loop(self.page // lanes) as v:
            scale = self.pages.value_scales(page, v * lanes, lanes)
            scale = scale if scale is None else bind(scale)
            for r in rows:
                p = math.exp2_nonpositive(load(state.scores, [row0 + r, v * lanes], lanes) - splat(tops[r], lanes))
                store(state.scores, [row0 + r, v * lanes], p if scale is None else p * scale)
                store(sums, [r, 0], load(sums, [r, 0], lanes) + p)
        for r in rows:
            total = fold(bind(load(sums, [r, 0], lanes)), lambda a, b: a + b)
            store(state.total, [row0 + r], fma(load(state.total, [row0 + r]), load(state.shrink, [row0 + r]), total))

    def _values(self, state: State, row0: Expr, page: Expr, visible: Expr) -> None:
        def tile(col: Expr, widths: list[int]) -> None:
            acc = [scratch((len(widths), self.isa.lanes)) for _ in range(self.rows)]
            starts = [sum(widths[:v]) for v in range(len(widths))]
            cells = [(r, v, w) for r in range(self.rows) for v, w in enumerate(widths)]
            for r, v, w in cells:
                old = load(state.values, [row0 + r, col + starts[v]], w)
                store(acc[r], [v, 0], old * splat(load(state.shrink, [row0 + r]), w))

            def at(slot: Expr) -> None:
                rows = [bind(self.pages.values(page, slot, col + starts[v], w)) for v, w in enumerate(widths)]
                for r, v, w in cells:
                    store(
                        acc[r],
                        [v, 0],
                        fma(splat(load(state.scores, [row0 + r, slot]), w), rows[v], load(acc[r], [v, 0], w)),
                    )

            with loop(visible // 4) as s, unroll(4) as u:
                at(s * 4 + u)
            with loop(visible % 4) as s:
                at(visible // 4 * 4 + s)
            for r, v, w in cells:
                store(state.values, [row0 + r, col + starts[v]], load(acc[r], [v, 0], w))

        column_tiles(self.value_dim, self.isa.lanes, self._vectors(self.value_dim), tile)


def unrolled(extent: int, body: Callable[[Expr], None], factor: int = 4) -> None:
    """Emit a loop of constant length with ``factor`` steps per iteration."""
    if extent // factor:
        with loop(extent // factor) as i, unroll(factor) as u:
            body(i * factor + u)
    for i in range(extent // factor * factor, extent):
        body(i64(i))
