"""GEMM and GEMV: ``out[T, N] = epilogue(x[T, K] @ W^T)`` over packed weight panels, for every T.

One token streams the weights through several panels at a time; up to a tile of rows reads each panel
once; more rows walk each panel down x in register tiles, with tail tiles of exact height. All of them
compute an output element by the same chain of fused multiply-adds, so their results are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.program.codes import Grouped
from fretsaw.backends.program.pack import PANEL, STORAGE
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    Kernel,
    bind,
    dim,
    either,
    kernel,
    load,
    loop,
    parallel,
    prefetch,
    unroll,
    when,
)
from fretsaw.backends.tvm.kernels.epilogue import Epilogue, Sink
from fretsaw.backends.tvm.kernels.grouped import GroupReader
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.tile import (
    UNROLL,
    Ahead,
    RowTile,
    Tile,
    accumulate,
    accumulate_grouped,
    spilled,
    widen_load,
)


@dataclass(frozen=True)
class GemmSpec:
    """What one GEMM computes.

    Args:
        n: output columns (GLU: F, the number of gated features).
        k: input features.
        weight: ``float32``, ``float16`` or ``bfloat16``, or how integer codes lie in words.
        epilogue: what follows the product.
    """

    n: int
    k: int
    isa: Isa
    weight: str | Grouped = "float32"
    epilogue: Epilogue = field(default_factory=Epilogue)
    name: str = "gemm"

    @property
    def panels(self) -> int:
        """Number of weight panels."""
        return -(-self.n // (8 if self.epilogue.glu else PANEL))


def declare_sink(k: Kernel, e: Epilogue, n: int, t: Expr, inplace_ok: bool = True) -> Callable[[], Sink]:
    """Declare the epilogue's inputs now; the returned function declares the output and gives the sink."""
    names = ("gate_bias", "up_bias") if e.glu else ("bias",)
    bias = tuple(k.arg(name, (n,)) for name in names) if e.bias else ()
    residual = k.arg("residual", (t, n)) if e.residual == "add" else None
    extra = tuple(k.arg(name, tuple(t if s is None else s for s in shape)) for name, shape in e.extra)

    def finish() -> Sink:
        out = k.arg("out", (t, n))
        return Sink(e, out, n, bias, out if e.residual == "inplace" else residual, extra)

    return finish


def gemm(spec: GemmSpec) -> tirx.PrimFunc:
    """Return the PrimFunc of a GEMM.

    Arguments in order: ``x f32[T, K]``; ``w [panels, K, 16]`` (uint16 for bf16; codes as in `grouped.py`); ``bias
    f32[N]`` if asked (GLU: ``gate_bias[F]``, ``up_bias[F]``); ``residual f32[T, N]`` if "add"; the callback's extra
    buffers; ``out f32[T, N]``.
    With residual "inplace" the last argument is read and written.
    """
    with kernel(spec.name) as k:
        t = dim("T")
        x = k.arg("x", (t, spec.k))
        if isinstance(spec.weight, Grouped):
            w = k.arg("w", spec.weight.shape(spec.panels, spec.k), "int32")
        else:
            w = k.arg("w", (spec.panels, spec.k, PANEL), STORAGE[spec.weight])
        _emit(_Rows(spec, x, w, declare_sink(k, spec.epilogue, spec.n, t)()), t)
    return k.func


@dataclass(frozen=True)
class _Rows:
    """The rows that one tile reads and writes."""

    spec: GemmSpec
    x: Buffer
    w: Buffer
    sink: Sink

    def tile(self, rows: int, panels: int, row0: Expr, panel: Expr, ahead: Ahead | None = None) -> None:
        """Emit one tile of ``rows`` x ``panels`` with its epilogue."""
        spec = self.spec
        tile = self.sums(rows, panels, row0, panel, ahead)
        if rows == 1 or spec.epilogue.glu is None:
            with unroll(rows) as r:
                self.sink.write_row(tile, r, row0 + r, panel)
            return
        # A gated epilogue is long: a loop over the rows of a copy of the tile halves the code and its compile time.
        for p in range(panels):
            done = spilled(tile, p)
            with loop(rows) as r:
                self.sink.write_row(RowTile(spec.isa, 1, 1, (done,)), r, row0 + r, panel + p)

    def sums(self, rows: int, panels: int, row0: Expr, panel: Expr, ahead: Ahead | None) -> Tile:
        isa, depth = self.spec.isa, self.spec.k

        def x(r: Expr, k: Expr) -> Expr:
            return load(self.x, [row0 + r, k])

        if isinstance(self.spec.weight, Grouped):
            reader = GroupReader(self.spec.weight, self.w, isa.lanes)
            return accumulate_grouped(isa, rows, panels, depth, x, reader, panel)
        return accumulate(
            isa, rows, panels, depth, x, lambda p, k, c: widen_load(self.w, [panel + p, k, c], isa.lanes), ahead
        )

    def tail(self, count: Expr, panels: int, row0: Expr, panel: Expr, ahead: Ahead | None) -> None:
        """Emit a tile of exactly ``count`` rows, 1 to one less than a full tile."""
        for rows in range(1, self.spec.isa.rows):
            with when(count == rows):
                self.tile(rows, panels, row0, panel, ahead)


@dataclass(frozen=True)
class _Fetch:
    """Fetches the weights that come next while these are used.

    A panel is read from memory once and then reused from the cache by the other row tiles. Without help the first tile
    waits for memory and the others leave it idle; so up to ``UNROLL`` tiles share the fetching of the next panels, each
    every n-th step of k. The other tiles fetch what is in the cache already, which costs less than a branch.
    """

    w: Buffer
    here: Expr
    there: Expr
    panels: int
    tiles: Expr

    @staticmethod
    def next_panel(rows: _Rows, panel: Expr, panels: int, t: Expr) -> _Fetch:
        height, last = rows.spec.isa.rows, rows.spec.panels - panels
        one, two, four = (tirx.const(n, "int64") for n in (1, 2, UNROLL))
        tiles = bind(T.Select(t > 3 * height, four, T.Select(t > height, two, one)))  # divisors of UNROLL
        return _Fetch(rows.w, panel, bind(tirx.min(panel + panels, tirx.const(last, "int64"))), panels, tiles)

    def share_of(self, tile: Expr) -> Ahead:
        """What row tile ``tile`` fetches in ``UNROLL`` steps from k on."""
        panel = bind(T.Select(tile < self.tiles, self.there, self.here))

        def ahead(k: Expr) -> None:
            with unroll(UNROLL) as u:
                step = T.bind((self.tiles * u + tile) % UNROLL)
                for p in range(self.panels):
                    prefetch(self.w, [panel + p, k + step, 0])

        return ahead


def _no_fetch(tile: Expr) -> Ahead | None:
    """Codes are few bytes: decoding them gives the memory time enough."""
    return None


def _vector_group(panels: int) -> int:
    """Return how many panels one GEMV step streams: enough chains to hide latency, even shares for threads."""

    def cost(group: int) -> tuple[int, int]:
        steps = -(-panels // group)
        return (steps + steps % 2) * group, -group

    return min((4, 3, 2, 1), key=cost)


def _row_splits(panels: int) -> int:
    """Return into how many row ranges a panel's work is cut so that threads get even shares."""
    splits = 1
    while panels * splits < 32 or (panels * splits % 4 and panels * splits < 256):
        splits *= 2
    return splits


def _emit(rows: _Rows, t: Expr) -> None:
    spec = rows.spec
    zero = tirx.const(0, "int64")
    group = _vector_group(spec.panels)
    with either(t == 1) as (one, many):
        with one:
            whole, rest = divmod(spec.panels, group)
            with parallel(whole + (rest > 0)) as g:
                if whole:
                    with when(g < whole):
                        rows.tile(1, group, zero, g * group)
                if rest:
                    with when(g == whole):
                        rows.tile(1, rest, zero, tirx.const(whole * group, "int64"))
        with many:
            _emit_many(rows, t)


def _emit_many(rows: _Rows, t: Expr) -> None:
    spec = rows.spec
    height, wide = spec.isa.rows, min(spec.isa.tile_panels, spec.panels)
    steps, rest = divmod(spec.panels, wide)
    groups = steps + (rest > 0)
    splits = _row_splits(groups)
    whole = t // height
    with parallel(groups * splits) as task:
        g = T.bind(task // splits)
        part = T.bind(task % splits)
        first, last = T.bind(part * whole // splits), T.bind((part + 1) * whole // splits)

        def body(panels: int, panel: Expr) -> None:
            fetch = (
                _no_fetch if isinstance(spec.weight, Grouped) else _Fetch.next_panel(rows, panel, panels, t).share_of
            )
            with loop(last - first) as i:
                rows.tile(height, panels, (first + i) * height, panel, fetch(first + i))
            with when(part == splits - 1):
                rows.tail(t % height, panels, whole * height, panel, fetch(whole))

        if not rest:
            body(wide, g * wide)
            return
        with either(g < steps) as (full, edge):
            with full:
                body(wide, g * wide)
            with edge:
                body(rest, tirx.const(steps * wide, "int64"))
