"""Elementwise expressions that ride in a kernel: the epilogue of a GEMM, or a kernel of their own.

An expression is a tree of tuples, so equal computations give equal kernel specs:
``("leaf", i)`` is buffer i (or accumulator i), ``("const", 0.5)`` a number, ``(op, a, b, ...)`` an elementwise op of
the IR. Leaves are described beside the tree by their kind:

    acc   the kernel's own accumulator           full   [T, N], one element per output element
    col   [N], one per column                    row    [T, 1], one per row
"""

from __future__ import annotations

from typing import Literal

LeafKind = Literal["acc", "full", "col", "row"]
# ("leaf", int) | ("const", float) | (op, Expr, ...); clamp and gelu carry their attributes as constants.
Expr = tuple[object, ...]

UNARY = frozenset(("neg", "abs", "exp", "rsqrt", "tanh", "sigmoid", "silu", "relu", "gelu"))
BINARY = frozenset(("add", "sub", "mul", "div", "maximum", "minimum"))


def leaf(index: int) -> Expr:
    return ("leaf", index)


def const(number: float) -> Expr:
    return ("const", float(number))


def expr_text(expr: Expr) -> str:
    """Short text such as ``add(x0, mul(x1, 0.5))``."""
    head, *rest = expr
    if head == "leaf":
        return f"x{rest[0]}"
    if head == "const":
        return repr(rest[0])
    return f"{head}({', '.join(expr_text(e) for e in rest)})"  # type: ignore[arg-type]
