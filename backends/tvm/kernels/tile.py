"""The register tile of every matrix kernel: rows x panels accumulators over one sequential chain in k.

Each output is ``fma(x[K-1], w[K-1], ... fma(x[0], w[0], 0))``, in this order and with nothing else, in a tile of
any shape. That is the whole reason why results do not depend on batch size, chunking or thread count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.program.pack import PANEL
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    Index,
    fma,
    i64,
    load,
    loop,
    scratch,
    splat,
    store,
    unroll,
    vtype,
)
from fretsaw.backends.tvm.kernels.grouped import GroupReader
from fretsaw.backends.tvm.kernels.isa import Isa

# (panel number within the tile, k, first column in the panel) -> f32 vector of weights
WeightLoad = Callable[[int, Expr, int], Expr]
# (row number within the tile, k) -> f32 scalar
InputLoad = Callable[[Expr, Expr], Expr]
# (first k of an iteration)
Ahead = Callable[[Expr], None]

UNROLL = 4  # steps of k per iteration of the emitted loop


def widen_load(buf: Buffer, index: Sequence[Index], lanes: int) -> Expr:
    """Load f32, f16 or bf16 (declared uint16) weights as f32."""
    value = load(buf, index, lanes)
    kind = str(buf.ty.dtype)
    if kind == "float32":
        return value
    if kind == "float16":
        return tirx.Cast(vtype("float32", lanes), value)
    wide = tirx.Cast(vtype("uint32", lanes), value)
    sixteen = tirx.const(16, "uint32")
    return T.reinterpret(vtype("float32", lanes), wide << (sixteen if lanes == 1 else T.broadcast(sixteen, lanes)))


@dataclass(frozen=True)
class Tile:
    """Accumulators of a rows x panels tile, readable after ``accumulate``."""

    isa: Isa
    rows: int
    panels: int
    acc: tuple[Buffer, ...]  # one per vector of columns, [rows, lanes]

    def vector(self, row: Index, panel: int, part: int) -> Expr:
        """Return vector ``part`` of the 16 columns of ``panel`` in ``row``."""
        per = PANEL // self.isa.lanes
        return load(self.acc[panel * per + part], [row, 0], self.isa.lanes)


@dataclass(frozen=True)
class RowTile(Tile):
    """One panel of a tile, copied to memory by ``spilled``: its rows may be chosen at run time."""

    def vector(self, row: Index, panel: int, part: int) -> Expr:
        return load(self.acc[0], [row * (PANEL // self.isa.lanes) + part, 0], self.isa.lanes)


def spilled(tile: Tile, panel: int) -> Buffer:
    """Copy one panel of a tile to memory, [rows * vectors, lanes], so that a loop can walk its rows."""
    per = PANEL // tile.isa.lanes
    out = scratch((tile.rows * per, tile.isa.lanes))
    with unroll(tile.rows) as r:
        for v in range(per):
            store(out, [r * per + v, 0], tile.vector(r, panel, v))
    return out


@dataclass(frozen=True)
class _Sums:
    """The accumulators of a tile while its chains grow."""

    isa: Isa
    rows: int
    panels: int
    x: InputLoad
    acc: tuple[Buffer, ...]

    @staticmethod
    def zero(isa: Isa, rows: int, panels: int, x: InputLoad) -> _Sums:
        lanes = isa.lanes
        acc = tuple(scratch((rows, lanes)) for _ in range(panels * (PANEL // lanes)))
        with unroll(rows) as r:
            for part in acc:
                store(part, [r, 0], splat(0.0, lanes))
        return _Sums(isa, rows, panels, x, acc)

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Panel and first column of each vector."""
        return [(p, c) for p in range(self.panels) for c in range(0, PANEL, self.isa.lanes)]

    def add(self, k: Expr, weights: Callable[[int], Expr]) -> None:
        """The next link of every chain; ``weights(i)`` gives the weights of vector i at ``k``."""
        lanes = self.isa.lanes
        if self.rows == 1:  # a stream: each vector of weights is used once, straight from memory
            for i, part in enumerate(self.acc):
                value = T.bind(weights(i))
                store(part, [0, 0], fma(splat(self.x(i64(0), k), lanes), value, load(part, [0, 0], lanes)))
            return
        # All weights of this k first, then each input once: 12 accumulators, 2 weights and 1 input fit 16 registers.
        columns = [T.bind(weights(i)) for i in range(len(self.acc))]
        with unroll(self.rows) as r:
            value = T.bind(self.x(r, k))
            for part, column in zip(self.acc, columns, strict=True):
                store(part, [r, 0], fma(splat(value, lanes), column, load(part, [r, 0], lanes)))

    def tile(self) -> Tile:
        return Tile(self.isa, self.rows, self.panels, self.acc)


def accumulate(
    isa: Isa,
    rows: int,
    panels: int,
    depth: int,
    x: InputLoad,
    w: WeightLoad,
    ahead: Ahead | None = None,
) -> Tile:
    """Emit the k loop of one tile and return its accumulators.

    Args:
        depth: K, the length of the chain.
        x: gives the input value of a row at k.
        w: gives ``isa.lanes`` weights of a panel at k.
        ahead: emits what fetches memory for later, once per ``UNROLL`` steps of k.
    """
    sums = _Sums.zero(isa, rows, panels, x)
    parts = sums.parts

    def step(k: Expr) -> None:
        sums.add(k, lambda i: w(parts[i][0], k, parts[i][1]))

    whole = depth // UNROLL
    if whole:
        with loop(whole) as ko:
            if ahead is not None:
                ahead(T.bind(ko * UNROLL))
            with unroll(UNROLL) as u:
                step(ko * UNROLL + u)
    for k in range(whole * UNROLL, depth):
        step(i64(k))
    return sums.tile()


def accumulate_grouped(
    isa: Isa, rows: int, panels: int, depth: int, x: InputLoad, reader: GroupReader, panel: Expr
) -> Tile:
    """As ``accumulate``, over weights in integer codes that are decoded in registers.

    Args:
        depth: K, a multiple of the group.
        panel: The tile's first panel.
    """
    sums = _Sums.zero(isa, rows, panels, x)
    how = reader.how
    with loop(depth // how.group) as g:
        terms = [reader.terms(panel + p, g, c) for p, c in sums.parts]
        with loop(how.group // how.step) as step:
            words = [reader.codes(panel + p, g, step, c) for p, c in sums.parts]
            first = T.bind(g * how.group + step * how.step)
            for which in range(how.step):
                sums.add(first + which, partial(_decoded, reader, words, terms, which))
    return sums.tile()


def _decoded(
    reader: GroupReader, words: Sequence[tuple[Expr, ...]], terms: Sequence[tuple[Expr, Expr]], which: int, vector: int
) -> Expr:
    return reader.weights(words[vector], which, terms[vector])
