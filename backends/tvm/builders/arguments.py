"""Arguments of kernels in the order of launches, and leaves of elementwise expressions."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from fretsaw.backends.program.expr import LeafKind
from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, load, splat

Extra = tuple[tuple[str, tuple[int | None, ...]], ...]


def scalars_first(func: tirx.PrimFunc, scalars: int, outputs: int) -> tirx.PrimFunc:
    """``func`` with its last ``scalars`` parameters moved before the ``outputs`` buffers that precede them."""
    params = list(func.params)
    head = params[: len(params) - scalars - outputs]
    made = params[len(head) : len(params) - scalars]
    moved = [*head, *params[len(params) - scalars :], *made]
    return tirx.PrimFunc(moved, func.body, func.ret_type, func.attrs)


def leaf(buffers: Sequence[Buffer], kinds: Sequence[LeafKind], row: Expr, col: Expr, lanes: int, index: int) -> Expr:
    """Load leaf ``index`` of an elementwise expression at (row, col)."""
    kind, buffer = kinds[index], buffers[index]
    if kind == "col":
        return load(buffer, [col], lanes)
    if kind == "row":
        return splat(load(buffer, [row, 0]), lanes)
    return load(buffer, [row, col], lanes)


def extra_buffers(kinds: Sequence[LeafKind], width: int) -> Extra:
    """Name and shape (None stands for T) of the buffers x1, x2, ... that an epilogue reads."""
    shapes: dict[LeafKind, tuple[int | None, ...]] = {"full": (None, width), "col": (width,), "row": (None, 1)}
    return tuple((f"x{i + 1}", shapes[kind]) for i, kind in enumerate(kinds))
