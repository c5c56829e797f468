"""Pieces that walk one row of f32 values: reductions in a fixed order, and loops over its vectors and tail."""

from __future__ import annotations

from collections.abc import Callable

from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    fmax,
    i64,
    load,
    loop,
    scratch,
    splat,
    store,
)

_STREAMS = 4  # independent partial sums, so that additions do not wait for each other


def for_columns(width: int, lanes: int, body: Callable[[Expr, int], None]) -> None:
    """Emit ``body(first column, lanes)`` for every vector of a row and ``body(column, 1)`` for its tail."""
    if width // lanes:
        with loop(width // lanes) as v:
            body(v * lanes, lanes)
    for c in range(width // lanes * lanes, width):
        body(i64(c), 1)


def add_lanes(parts: list[Expr]) -> Expr:
    """Add scalars as a balanced tree."""
    while len(parts) > 1:
        parts = [bind(parts[i] + parts[i + 1]) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)]
    return parts[0]


def max_lanes(parts: list[Expr]) -> Expr:
    """Return the largest of scalars, as a balanced tree."""
    while len(parts) > 1:
        parts = [
            bind(fmax(parts[i], parts[i + 1])) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)
        ]
    return parts[0]


def reduce_row(width: int, lanes: int, accumulate: Callable[[Expr, Expr, int], Expr]) -> Expr:
    """Return the sum over a row; ``accumulate(total, column, lanes)`` gives the new partial sum.

    The order depends on ``width`` and ``lanes`` alone: vector v adds to stream v mod 4, the streams and lanes
    are added as a tree, the tail in order after them.
    """
    sums = scratch((_STREAMS, lanes))
    for s in range(_STREAMS):
        store(sums, [s, 0], splat(0.0, lanes))
    vectors = width // lanes
    if vectors // _STREAMS:
        with loop(vectors // _STREAMS) as v:
            for s in range(_STREAMS):
                new = accumulate(load(sums, [s, 0], lanes), (v * _STREAMS + s) * lanes, lanes)
                store(sums, [s, 0], new)
    for v in range(vectors // _STREAMS * _STREAMS, vectors):
        s = v % _STREAMS
        store(sums, [s, 0], accumulate(load(sums, [s, 0], lanes), i64(v * lanes), lanes))
    folded = add_lanes([bind(load(sums, [s, 0], lanes)) for s in range(_STREAMS)])
    store(sums, [0, 0], folded)
    total = add_lanes([bind(load(sums, [0, j])) for j in range(lanes)])
    for c in range(vectors * lanes, width):
        total = bind(accumulate(total, i64(c), 1))
    return total


def reader(buf: Buffer, *head: Expr) -> Callable[[Expr, int], Expr]:
    """Return ``(column, lanes) -> load`` for one row of a buffer."""
    return lambda c, lanes: load(buf, [*head, c], lanes)


def scale_by(value: Expr, factor: Expr, lanes: int) -> Expr:
    """Return ``value * factor`` with a scalar factor."""
    return value * (factor if lanes == 1 else T.broadcast(factor, lanes))
