"""Grouped GEMM: every expert multiplies just the rows that chose it, by weights that are packed per expert.

Tasks are groups of weight panels and each goes through all experts, so threads get even shares however the
tokens are spread, and one token's few experts are still streamed by every thread. An expert without rows is
skipped. The product of a row is the same chain of fused multiply-adds as in ``gemm``, in a tile of any height.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.program.codes import Grouped
from fretsaw.backends.program.pack import PANEL, STORAGE
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    Kernel,
    bind,
    dim,
    either,
    fma,
    kernel,
    lanes_of,
    load,
    loop,
    parallel,
    scratch,
    splat,
    store,
    unroll,
    when,
)
from fretsaw.backends.tvm.kernels.epilogue import Epilogue, Glu, Sink
from fretsaw.backends.tvm.kernels.grouped import GroupReader
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns, scale_by
from fretsaw.backends.tvm.kernels.tile import (
    InputLoad,
    RowTile,
    Tile,
    accumulate,
    accumulate_grouped,
    spilled,
    widen_load,
)


@dataclass(frozen=True)
class GroupedSpec:
    """One linear of all experts.

    Args:
        experts: E.
        n: output columns (GLU: F, the number of gated features).
        k: input features.
        weight: a dtype, or how integer codes lie in words.
        classes: where experts are in codes of several widths, the width and the number of experts of each class; then
            ``weight`` is unused, and ``members`` says which experts a class has.
        gather: k of the router: pair p reads the row of its token and writes row p, in the order of experts.
            0: it reads row p and writes the row of the pair, in the order of tokens.
        bias: add a bias per expert.
    """

    experts: int
    n: int
    k: int
    isa: Isa
    weight: str | Grouped = "float32"
    classes: tuple[tuple[Grouped, int], ...] = ()
    gather: int = 0
    glu: Glu | None = None
    bias: bool = False
    name: str = "grouped"

    @property
    def widths(self) -> tuple[tuple[str | Grouped, int], ...]:
        """Width and number of experts of every class."""
        return self.classes or ((self.weight, self.experts),)

    @property
    def panels(self) -> int:
        """Number of weight panels of one expert."""
        return _ceil(self.n, 8 if self.glu else PANEL)

    @property
    def group(self) -> int:
        """Panels of one task: enough chains to hide latency for a single row, even shares for two threads."""
        sizes = (4, 3, 2, 1) if self.isa.tile_panels == 1 else range(self.isa.tile_panels, 0, -1)
        return min(sizes, key=lambda g: (_ceil(_ceil(self.panels, g), 2) * 2 * g, -g))

    @property
    def splits(self) -> int:
        """Row ranges that a task's experts are cut into, where there are few panels for many threads."""
        splits = 1
        while _ceil(self.panels, self.group) * splits < 16:
            splits *= 2
        return splits


@dataclass(frozen=True)
class _ExpertSink(Sink):
    """A sink that first adds the bias of one expert."""

    expert: Expr | None = None
    expert_bias: tuple[Buffer, ...] = ()

    def emit(self, parts: Sequence[Expr], row: Expr, col: Expr) -> None:
        if self.expert is not None and self.expert_bias:
            lanes = lanes_of(parts[0])
            pairs = zip(parts, self.expert_bias, strict=True)
            parts = [bind(p + load(b, [self.expert * self.width + col], lanes)) for p, b in pairs]
        super().emit(parts, row, col)


def grouped_gemm(spec: GroupedSpec) -> tirx.PrimFunc:
    """Return the PrimFunc of a grouped GEMM.

    Arguments in order: ``x f32[R, K]``; ``offsets i32[E + 1]`` and ``order i32[P]`` of ``sort_by_expert``; ``w
    [E, panels, K, 16]`` (uint16 for bf16; GLU: ``pack_glu_panels``; codes as in `grouped.py`), or with ``classes``
    ``members i32[E]``, the experts of the first class, of the second and so on, and one such array for each class;
    ``bias f32[E*N]`` if asked (GLU: ``gate_bias f32[E*F]``, ``up_bias f32[E*F]``); ``out f32[P, N]``. R is T with
    ``gather``, else P.
    """
    with kernel(spec.name) as k:
        pairs = dim("P")
        x = k.arg("x", (dim("T") if spec.gather else pairs, spec.k))
        offsets = k.arg("offsets", (spec.experts + 1,), "int32")
        order = k.arg("order", (pairs,), "int32")
        members = k.arg("members", (spec.experts,), "int32") if spec.classes else None
        weights = [_declare(k, spec, f"w{i}" if spec.classes else "w", *c) for i, c in enumerate(spec.widths)]
        names = () if not spec.bias else ("gate_bias", "up_bias") if spec.glu else ("bias",)
        bias = tuple(k.arg(name, (spec.experts * spec.n,)) for name in names)
        out = k.arg("out", (pairs, spec.n))
        with parallel(_ceil(spec.panels, spec.group) * spec.splits) as task:
            panel = bind(task // spec.splits * spec.group)
            part = bind(task % spec.splits)
            begin = 0
            for (weight, size), w in zip(spec.widths, weights, strict=True):
                with loop(size) as place:
                    e = place if members is None else bind(tirx.Cast("int64", load(members, [begin + place])))
                    first = bind(tirx.Cast("int64", load(offsets, [e])))
                    count = bind(tirx.Cast("int64", load(offsets, [e + 1])) - first)
                    with when(count > 0):
                        sink = _ExpertSink(Epilogue(glu=spec.glu), out, spec.n, expert=e, expert_bias=bias)
                        _Expert(spec, x, order, _Weights(weight, w, place), sink, e, first).emit(count, panel, part)
                begin += size
    return k.func


def _declare(k: Kernel, spec: GroupedSpec, name: str, weight: str | Grouped, size: int) -> Buffer:
    """The weights of one class."""
    if isinstance(weight, Grouped):
        return k.arg(name, (size, *weight.shape(spec.panels, spec.k)), "int32")
    return k.arg(name, (size, spec.panels, spec.k, PANEL), STORAGE[weight])


@dataclass(frozen=True)
class _Weights:
    """One expert's weights: how they are stored, the buffer of its class, and its place there."""

    how: str | Grouped
    buffer: Buffer
    place: Expr


@dataclass(frozen=True)
class _Expert:
    """One expert's rows in one task."""

    spec: GroupedSpec
    x: Buffer
    order: Buffer
    w: _Weights
    sink: Sink
    expert: Expr
    first: Expr

    def tile(self, rows: int, panels: int, row0: Expr, panel: Expr) -> None:
        """Emit one tile of ``rows`` x ``panels`` with its epilogue; ``row0`` counts from the expert's first row."""
        spec = self.spec
        source, target = scratch((rows,), "int64"), scratch((rows,), "int64")
        with unroll(rows) as r:
            place = bind(self.first + row0 + r)
            pair = bind(tirx.Cast("int64", load(self.order, [place])))
            store(source, [r], tirx.truncdiv(pair, _i64(spec.gather)) if spec.gather else place)
            store(target, [r], place if spec.gather else pair)
        tile = self._sums(rows, panels, panel, lambda r, k: load(self.x, [load(source, [r]), k]))
        if rows == 1:
            self.sink.write_row(tile, _i64(0), bind(load(target, [0])), panel)
            return
        # A loop over rows: unrolled epilogues of every tile shape would be most of the kernel's code.
        for p in range(panels):
            done = spilled(tile, p)
            with loop(rows) as i:
                self.sink.write_row(RowTile(spec.isa, 1, 1, (done,)), i, bind(load(target, [i])), panel + p)

    def _sums(self, rows: int, panels: int, panel: Expr, x: InputLoad) -> Tile:
        spec, w = self.spec, self.w
        if isinstance(w.how, Grouped):
            reader = GroupReader(w.how, w.buffer, spec.isa.lanes, (w.place,))
            return accumulate_grouped(spec.isa, rows, panels, spec.k, x, reader, panel)
        return accumulate(
            spec.isa, rows, panels, spec.k, x,
            lambda p, k, c: widen_load(w.buffer, [w.place, panel + p, k, c], spec.isa.lanes),
        )  # fmt: skip

    def emit(self, count: Expr, panel: Expr, part: Expr) -> None:
        """Emit the tiles of this task: all panels of its group by its share of the row tiles."""
        spec, height = self.spec, self.spec.isa.rows
        whole, rest = bind(tirx.truncdiv(count, _i64(height))), bind(tirx.truncmod(count, _i64(height)))
        low, high = self._share(bind(whole + tirx.Cast("int64", rest > 0)), part)
        full = bind(tirx.min(high, whole))
        wide = min(spec.isa.tile_panels, spec.group)

        def columns(panels: int, at: Expr) -> None:
            with loop(tirx.max(full - low, _i64(0))) as i:
                self.tile(height, panels, (low + i) * height, at)
            with when(high > whole):
                for rows in range(2, height):
                    with when(rest == rows):
                        self.tile(rows, panels, whole * height, at)

        self._panels(panel, wide, columns)
        with when(tirx.all(high > whole, rest == 1)):
            # A single row waits for its own chain: it takes the whole group at once.
            self._panels(panel, spec.group, lambda panels, at: self.tile(1, panels, whole * height, at))

    def _share(self, tiles: Expr, part: Expr) -> tuple[Expr, Expr]:
        """The row tiles of ``part``; experts start at different parts, so that single tiles spread over them."""
        splits = self.spec.splits
        if splits == 1:
            return _i64(0), tiles
        turn = bind(tirx.truncmod(part + self.expert, _i64(splits)))
        return bind(tirx.truncdiv(turn * tiles, _i64(splits))), bind(tirx.truncdiv((turn + 1) * tiles, _i64(splits)))

    def _panels(self, panel: Expr, wide: int, body: Callable[[int, Expr], None]) -> None:
        """Emit ``body(panels, first panel)`` for the group at ``panel``: ``wide`` at once, one by one at the edge."""
        spec = self.spec
        rest = spec.panels % spec.group
        edge = spec.panels - rest
        if wide == 1:
            with loop(tirx.min(spec.panels - panel, spec.group)) as p:
                body(1, bind(panel + p))
        elif not rest:
            body(wide, panel)
        else:
            with either(panel < edge) as (inside, outside):
                with inside:
                    body(wide, panel)
                with outside, loop(rest) as p:
                    body(1, bind(edge + p))


def _i64(value: int) -> Expr:
    return tirx.const(value, "int64")


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


# (value, row, first column, extra buffers) -> value, as the epilogue's callback
Finish = Callable[[Expr, Expr, Expr, Sequence[Buffer]], Expr]


@dataclass(frozen=True)
class CombineSpec:
    """The sum over a token's experts.

    Args:
        width: D.
        slots: k.
        finish: elementwise work on the sum, with its ``extra`` buffers (name, shape; None stands for T).
    """

    width: int
    slots: int
    isa: Isa
    finish: Finish | None = None
    extra: tuple[tuple[str, tuple[int | None, ...]], ...] = ()
    name: str = "combine"


def combine(spec: CombineSpec) -> tirx.PrimFunc:
    """Return the PrimFunc of ``out[t] = finish(sum over slots j, in order, of weight[t, j] * y[t*k + j])``.

    Arguments in order: ``y f32[T*k, D]``; ``weight f32[T, k]``; the extra buffers; ``out f32[T, D]``.
    """
    with kernel(spec.name) as k:
        t, pairs = dim("T"), dim("P")
        y = k.arg("y", (pairs, spec.width))
        weight = k.arg("weight", (t, spec.slots))
        extra = [k.arg(name, tuple(t if s is None else s for s in shape)) for name, shape in spec.extra]
        out = k.arg("out", (t, spec.width))
        with parallel(t) as row:
            factors = [bind(load(weight, [row, j])) for j in range(spec.slots)]

            def column(c: Expr, n: int) -> None:
                total = splat(0.0, n)
                for j, factor in enumerate(factors):
                    value = load(y, [row * spec.slots + j, c], n)
                    total = bind(fma(splat(factor, n), value, total) if j else scale_by(value, factor, n))
                store(out, [row, c], spec.finish(total, row, c, extra) if spec.finish else total)

            for_columns(spec.width, spec.isa.lanes, column)
    return k.func


__all__ = ["CombineSpec", "GroupedSpec", "combine", "grouped_gemm"]
