"""One parallel, vectorized PrimFunc from a small elementwise expression over rows.

The expression is a Python function over vectors: it gets one f32 expression per input and returns one per output.
Write multiply-adds with ``emit.fma`` and functions with ``kernels.math``; both work for any number of lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, bind, dim, kernel, load, loop, parallel, splat, store
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns

Body = Callable[[Sequence[Expr]], Sequence[Expr]]
_SHAPES = ("full", "row", "column", "scalar")
_BLOCK = 8  # rows per parallel iteration


@dataclass(frozen=True)
class ElementwiseSpec:
    """An elementwise kernel.

    Args:
        width: N, the length of a row.
        inputs: per input its kind: ``full`` [T, N], ``row`` [T, 1] (one value per row), ``column`` [N], ``scalar`` [1].
        outputs: number of outputs, each [T, N].
        body: the expression.
    """

    width: int
    inputs: tuple[str, ...]
    outputs: int
    body: Body
    isa: Isa
    name: str = "elementwise"


def elementwise(spec: ElementwiseSpec) -> tirx.PrimFunc:
    """Return the PrimFunc: the inputs in order, then the outputs ``f32[T, N]``.

    Raises:
        ValueError: an unknown input kind, or no input tells T.
    """
    unknown = [kind for kind in spec.inputs if kind not in _SHAPES]
    if unknown:
        raise ValueError(f"elementwise input kinds {unknown}: expected some of {', '.join(_SHAPES)}")
    with kernel(spec.name) as k:
        t = dim("T")
        shapes = {"full": (t, spec.width), "row": (t, 1), "column": (spec.width,), "scalar": (1,)}
        inputs = [k.arg(f"in{i}", shapes[kind]) for i, kind in enumerate(spec.inputs)]
        outputs = [k.arg(f"out{i}", (t, spec.width)) for i in range(spec.outputs)]

        def read(kind: str, buf: Buffer, row: Expr, c: Expr, n: int) -> Expr:
            if kind == "full":
                return load(buf, [row, c], n)
            if kind == "column":
                return load(buf, [c], n)
            return splat(bind(load(buf, [row, 0] if kind == "row" else [0])), n)

        with parallel((t + _BLOCK - 1) // _BLOCK) as block, loop(tirx.min(t - block * _BLOCK, _BLOCK)) as i:
            row = bind(block * _BLOCK + i)

            def column(c: Expr, n: int) -> None:
                values = [bind(read(kind, b, row, c, n)) for kind, b in zip(spec.inputs, inputs, strict=True)]
                for out, value in zip(outputs, spec.body(values), strict=True):
                    store(out, [row, c], value)

            for_columns(spec.width, spec.isa.lanes, column)
    return k.func
