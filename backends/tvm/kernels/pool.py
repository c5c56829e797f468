"""From hidden states of packed sequences to one vector each, and vectors of length one."""

from __future__ import annotations

from tvm import tirx

from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import (
    Expr,
    bind,
    dim,
    fma,
    fmax,
    i64,
    kernel,
    load,
    loop,
    parallel,
    splat,
    store,
    when,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns, reduce_row


def segment_pool(width: int, kind: str, isa: Isa, name: str = "segment_pool") -> tirx.PrimFunc:
    """Return the PrimFunc that pools by ``first``, ``last``, ``mean``, ``max`` or ``mean_sqrt``.

    Arguments in order: ``x f32[T, D]``; ``cu i32[B + 1]``; ``out f32[B, D]``, zeros for a sequence without tokens. Sums
    are f32, in the order of the tokens.
    """
    lanes = isa.lanes
    with kernel(name) as k:
        t, b = dim("T"), dim("B")
        x, cu, out = k.arg("x", (t, width)), k.arg("cu", (b + 1,), "int32"), k.arg("out", (b, width))
        with parallel(b) as row:
            first = bind(tirx.Cast("int64", load(cu, [row])))
            count = bind(tirx.Cast("int64", load(cu, [row + 1])) - first)
            for_columns(width, lanes, lambda c, n: store(out, [row, c], splat(0.0, n)))
            with when(count > 0):
                start = bind(first + count - 1) if kind == "last" else first
                for_columns(width, lanes, lambda c, n: store(out, [row, c], load(x, [start, c], n)))
                with loop(i64(0) if kind in ("first", "last") else count - 1) as i:

                    def step(c: Expr, n: int) -> None:
                        old, new = bind(load(out, [row, c], n)), bind(load(x, [first + 1 + i, c], n))
                        store(out, [row, c], fmax(old, new) if kind == "max" else old + new)

                    for_columns(width, lanes, step)
                if kind.startswith("mean"):
                    tokens = tirx.Cast("float32", count)
                    size = bind(tokens if kind == "mean" else math.sqrt(tokens))
                    for_columns(
                        width, lanes, lambda c, n: store(out, [row, c], load(out, [row, c], n) / splat(size, n))
                    )
    return k.func


def l2_norm(width: int, eps: float, isa: Isa, name: str = "l2_norm") -> tirx.PrimFunc:
    """Return the PrimFunc of ``x / max(|x|, eps)`` over rows.

    Arguments in order: ``x f32[B, D]``; ``out f32[B, D]``.
    """
    with kernel(name) as k:
        b = dim("B")
        x, out = k.arg("x", (b, width)), k.arg("out", (b, width))
        with parallel(b) as row:

            def square(total: Expr, c: Expr, n: int) -> Expr:
                value = bind(load(x, [row, c], n))
                return fma(value, value, total)

            length = math.sqrt(bind(reduce_row(width, isa.lanes, square)))
            size = bind(fmax(length, splat(eps, 1)))
            for_columns(width, isa.lanes, lambda c, n: store(out, [row, c], load(x, [row, c], n) / splat(size, n)))
    return k.func
