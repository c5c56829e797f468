"""Write an elementwise expression into a kernel, with one rounding per IR op."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fretsaw.backends.program.expr import Expr as Tree
from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import Expr, bind, fma, lanes_of, select, splat

Loader = Callable[[int], Expr]

_UNARY: dict[str, Callable[[Expr], Expr]] = {
    **math.ACTIVATIONS,
    "exp": math.exp,
    "rsqrt": math.rsqrt,
    "neg": lambda x: splat(0.0, lanes_of(x)) - x,
    "abs": lambda x: select(x < splat(0.0, lanes_of(x)), splat(0.0, lanes_of(x)) - x, x),
}


def _add(a: Expr, b: Expr) -> Expr:
    # fma with one: LLVM must not contract the sum with a product in one tile shape and not in another.
    return fma(a, splat(1.0, lanes_of(b)), b)


_BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
    "add": _add,
    "sub": lambda a, b: fma(b, splat(-1.0, lanes_of(b)), a),
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "maximum": lambda a, b: select(a < b, b, a),
    "minimum": lambda a, b: select(b < a, b, a),
}
LOWERED = frozenset(_UNARY) | frozenset(_BINARY)


def lower(tree: Tree, leaves: Loader, lanes: int) -> Expr:
    """Return the value of ``tree``; ``leaves(i)`` loads leaf i with ``lanes`` elements, once per leaf."""
    loaded: dict[int, Expr] = {}

    def walk(node: Tree) -> Expr:
        head, *rest = node
        if head == "leaf":
            index = rest[0]
            assert isinstance(index, int)
            if index not in loaded:
                loaded[index] = bind(leaves(index))
            return loaded[index]
        if head == "const":
            assert isinstance(rest[0], float)
            return splat(rest[0], lanes)
        args: Sequence[Expr] = [walk(x) for x in rest if isinstance(x, tuple)]
        assert isinstance(head, str)
        return bind(_UNARY[head](args[0]) if head in _UNARY else _BINARY[head](args[0], args[1]))

    return walk(tree)
