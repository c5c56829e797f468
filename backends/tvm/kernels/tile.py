"""The register tile of every matrix kernel: rows x panels accumulators over one sequential chain in k.

Each output is ``fma(x[K-1], w[K-1], ... fma(x[0], w[0], 0))``, in this order and with nothing else, in a tile of
any shape. That is the whole reason why results do not depend on batch size, chunking or thread count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    parts = [(p, v) for p in range(panels) for v in range(per)]
    acc = tuple(scratch((rows, lanes)) for _ in parts)
    with unroll(rows) as r:
        for part in acc:
            store(part, [r, 0], splat(0.0, lanes))

    def step(k: Expr) -> None:
        if rows == 1:  # a stream: each vector of weights is used once, straight from memory
            for part, (p, v) in zip(acc, parts, strict=True):
                weights = T.bind(w(p, k, v * lanes))
                store(part, [0, 0], fma(splat(x(i64(0), k), lanes), weights, load(part, [0, 0], lanes)))
            return
        # All weights of this k first, then each input once: 12 accumulators, 2 weights and 1 input fit 16 registers.
        columns = [T.bind(w(p, k, v * lanes)) for p, v in parts]
        with unroll(rows) as r:
            value = T.bind(x(r, k))
            for part, weights in zip(acc, columns, strict=True):
                store(part, [r, 0], fma(splat(value, lanes), weights, load(part, [r, 0], lanes)))

    whole = depth // UNROLL
    if whole:
        with loop(whole) as ko:
            if ahead is not None:
                ahead(T.bind(ko * UNROLL))
            with unroll(UNROLL) as u:
                step(ko * UNROLL + u)
    for k in range(whole * UNROLL, depth):
        step(i64(k))
    return Tile(isa, rows, panels, acc)
