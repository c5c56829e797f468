"""The register tile of every matrix kernel: rows x panels accumulators over one sequential chain in k.

Each output is ``fma(x[K-1], w[K-1], ... fma(x[0], w[0], 0))``, in this order and with nothing else, in a tile of
any shape. That is the whole reason why results do not depend on batch size, chunking or thread count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, Index, fma, load, loop, scratch, splat, store, vtype
from fretsaw.backends.tvm.kernels.isa import PANEL, Isa

# (panel number within the tile, k, first column in the panel) -> f32 vector of weights
WeightLoad = Callable[[int, Expr, int], Expr]
# (row number within the tile, k) -> f32 scalar
InputLoad = Callable[[int, Expr], Expr]
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
    acc: tuple[Buffer, ...]  # one per row

    def vector(self, row: int, panel: int, part: int) -> Expr:
        """Return vector ``part`` of the 16 columns of ``panel`` in ``row``."""
        per = PANEL // self.isa.lanes
        return load(self.acc[row], [panel * per + part, 0], self.isa.lanes)


@dataclass(frozen=True)
class RowTile(Tile):
    """One row, chosen at run time, of a panel that ``spilled`` wrote."""

    at: Expr

    def vector(self, row: int, panel: int, part: int) -> Expr:
        per = PANEL // self.isa.lanes
        return load(self.acc[0], [self.at * per + part, 0], self.isa.lanes)


def spilled(tile: Tile, panel: int) -> Buffer:
    """Copy one panel of a tile to memory, [rows * vectors, lanes], so that a loop can walk its rows."""
    per = PANEL // tile.isa.lanes
    out = scratch((tile.rows * per, tile.isa.lanes))
    for r in range(tile.rows):
        for v in range(per):
            store(out, [r * per + v, 0], tile.vector(r, panel, v))
    return out


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
    lanes, per = isa.lanes, PANEL // isa.lanes
    acc = tuple(scratch((panels * per, lanes)) for _ in range(rows))
    for row in acc:
        for i in range(panels * per):
            store(row, [i, 0], splat(0.0, lanes))

    def step(k: Expr) -> None:
        parts = [(p, v) for p in range(panels) for v in range(per)]
        if rows == 1:  # a stream: each vector of weights is used once, straight from memory
            for i, (p, v) in enumerate(parts):
                weights = T.bind(w(p, k, v * lanes))
                store(acc[0], [i, 0], fma(splat(x(0, k), lanes), weights, load(acc[0], [i, 0], lanes)))
            return
        # All weights of this k first, then each input once: 12 accumulators, 2 weights and 1 input fit 16 registers.
        columns = [T.bind(w(p, k, v * lanes)) for p, v in parts]
        for r in range(rows):
            value = T.bind(x(r, k))
            for i, weights in enumerate(columns):
                store(acc[r], [i, 0], fma(splat(value, lanes), weights, load(acc[r], [i, 0], lanes)))

    whole = depth // UNROLL
    if whole:
        with loop(whole) as ko:
            if ahead is not None:
                ahead(T.bind(ko * UNROLL))
            for u in range(UNROLL):
                step(ko * UNROLL + u)
    for k in range(whole * UNROLL, depth):
        step(tirx.const(k, "int64"))
    return Tile(isa, rows, panels, acc)
