"""Rotation of vectors that stand for blocks, by angles in f64: a block may begin where an f32 angle has lost digits."""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, bind, fma, load, loop, splat, store
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns


def angles(position: Expr, freq: Buffer, pairs: int, cos: Buffer, sin: Buffer, at: list[Expr]) -> None:
    """Write cosines and sines of ``position * freq`` to ``cos[*at, 0 : pairs]`` and ``sin`` alike."""
    exact = bind(tirx.Cast("float64", position))
    with loop(pairs) as c:
        angle = bind(exact * tirx.Cast("float64", load(freq, [c])))
        store(cos, [*at, c], tirx.Cast("float32", T.cos(angle)))
        store(sin, [*at, c], tirx.Cast("float32", T.sin(angle)))


def pair_of(layout: str, size: int, c: Expr) -> tuple[Expr, Expr]:
    """Return the two elements of pair ``c``."""
    return (2 * c, 2 * c + 1) if layout == "interleaved" else (c, c + size // 2)


def turn(
    isa: Isa, layout: str, size: int, x: tuple[Buffer, list[Expr]], cos: Buffer, sin: Buffer, at: list[Expr],
    out: tuple[Buffer, list[Expr]], back: bool = False,
) -> None:  # fmt: skip
    """Rotate a vector of ``size`` elements, all of them, into ``out``; ``back``: in the other direction."""

    def pair(c: Expr, n: int) -> None:
        first, second = pair_of(layout, size, c)
        a, b = (bind(load(x[0], [*x[1], i], n)) for i in (first, second))
        u, v = bind(load(cos, [*at, c], n)), bind(load(sin, [*at, c], n))
        minus = bind(splat(0.0, n) - v)
        forth, opposite = (minus, v) if back else (v, minus)
        store(out[0], [*out[1], first], fma(a, u, bind(b * opposite)))
        store(out[0], [*out[1], second], fma(b, u, bind(a * forth)))

    for_columns(size // 2, 1 if layout == "interleaved" else isa.lanes, pair)
