"""What happens to a GEMM result on its way from the accumulator to memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tvm.script.ir_builder import tirx as T

from fretsaw.backends.program.pack import PANEL
from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    fma,
    lanes_of,
    load,
    loop,
    scratch,
    select,
    splat,
    store,
)
from fretsaw.backends.tvm.kernels.tile import Tile

# (value, row, first column, extra buffers) -> value; any number of lanes, elementwise.
Callback = Callable[[Expr, Expr, Expr, Sequence[Buffer]], Expr]


@dataclass(frozen=True)
class Glu:
    """A gated pair: ``act(gate) * up`` over panels made by ``pack_glu_panels``.

    With ``limit`` it is GPT-OSS's clamped form: gate = min(gate, limit), up = clamp(up, -limit, limit),
    result = (up + 1) * gate * sigmoid(alpha * gate); ``activation`` is then unused.
    """

    activation: str = "silu"
    limit: float | None = None
    alpha: float = 1.702


@dataclass(frozen=True)
class Epilogue:
    """Steps in this order: bias, scale, soft cap, activation (or GLU), callback, residual.

    Args:
        bias: add ``bias[N]`` (GLU: ``gate_bias[F]`` and ``up_bias[F]``).
        scale: multiply by a constant.
        soft_cap: ``cap * tanh(y / cap)`` where not zero.
        activation: a key of ``math.ACTIVATIONS``.
        residual: ``"add"`` reads ``residual[T, N]``; ``"inplace"`` adds into the output buffer.
        callback: an elementwise expression with its ``extra`` buffers (name, shape; None stands for T).
    """

    bias: bool = False
    scale: float = 1.0
    soft_cap: float = 0.0
    activation: str | None = None
    glu: Glu | None = None
    residual: str = "none"
    callback: Callback | None = None
    extra: tuple[tuple[str, tuple[int | None, ...]], ...] = field(default=())


@dataclass(frozen=True)
class Sink:
    """Where a tile's values go: the output, its width, and the buffers that the epilogue reads."""

    spec: Epilogue
    out: Buffer
    width: int
    bias: tuple[Buffer, ...] = ()
    residual: Buffer | None = None
    extra: tuple[Buffer, ...] = ()

    @property
    def panel_width(self) -> int:
        """Output columns per panel: 16, or 8 where a panel holds gate and up."""
        return 8 if self.spec.glu else PANEL

    def _glu(self, glu: Glu, gate: Expr, up: Expr) -> Expr:
        lanes = lanes_of(gate)
        gate, up = bind(gate), bind(up)
        if glu.limit is None:
            return math.ACTIVATIONS[glu.activation](gate) * up
        high, low = splat(glu.limit, lanes), splat(-glu.limit, lanes)
        gate = bind(select(high < gate, high, gate))
        up = bind(select(high < up, high, up))
        up = bind(select(up < low, low, up))
        gated = bind(gate * math.sigmoid(gate * splat(glu.alpha, lanes)))
        return (up + splat(1.0, lanes)) * gated

    def emit(self, parts: Sequence[Expr], row: Expr, col: Expr) -> None:
        """Finish and store one vector (or scalar); ``parts`` is (value,) or (gate, up)."""
        spec, lanes = self.spec, lanes_of(parts[0])
        if spec.bias:
            parts = [p + load(b, [col], lanes) for p, b in zip(parts, self.bias, strict=True)]
        if spec.scale != 1.0:
            parts = [p * splat(spec.scale, lanes) for p in parts]
        value = bind(self._glu(spec.glu, *parts) if spec.glu else parts[0])
        if spec.soft_cap:
            value = math.soft_cap(value, spec.soft_cap)
        if spec.activation:
            value = math.ACTIVATIONS[spec.activation](value)
        if spec.callback:
            value = bind(spec.callback(value, row, col, self.extra))
        if self.residual is not None:
            # fma with one: the sum must not be contracted with a product that made `value`.
            value = fma(load(self.residual, [row, col], lanes), splat(1.0, lanes), value)
        store(self.out, [row, col], value)

    def write_row(self, tile: Tile, r: Expr, row: Expr, panel: Expr) -> None:
        """Finish row ``r`` of a tile whose first panel is ``panel``, and store it as output row ``row``."""
        for p in range(tile.panels):
            self._write_panel(tile, r, row, p, panel + p)

    def _write_panel(self, tile: Tile, r: Expr, row: Expr, p: int, panel: Expr) -> None:
        tail = self.width % self.panel_width
        if not tail:
            self._write_vectors(tile, r, row, p, panel)
            return
        last = self.width // self.panel_width
        with T.If(panel < last):
            with T.Then():
                self._write_vectors(tile, r, row, p, panel)
            with T.Else():
                self._write_scalars(tile, r, row, p, panel, tail)

    def _write_vectors(self, tile: Tile, r: Expr, row: Expr, p: int, panel: Expr) -> None:
        lanes = tile.isa.lanes
        if not self.spec.glu:
            for v in range(PANEL // lanes):
                self.emit([tile.vector(r, p, v)], row, panel * PANEL + v * lanes)
        elif lanes == 8:
            self.emit([tile.vector(r, p, 0), tile.vector(r, p, 1)], row, panel * 8)
        else:
            both = tile.vector(r, p, 0)
            self.emit([T.vectorlow("float32x8", both), T.vectorhigh("float32x8", both)], row, panel * 8)

    def _write_scalars(self, tile: Tile, r: Expr, row: Expr, p: int, panel: Expr, tail: int) -> None:
        lanes = tile.isa.lanes
        spill = scratch((PANEL,))
        for v in range(PANEL // lanes):
            store(spill, [v * lanes], tile.vector(r, p, v))
        with loop(tail) as c:
            parts = [load(spill, [c])] + ([load(spill, [c + 8])] if self.spec.glu else [])
            self.emit(parts, row, panel * self.panel_width + c)
