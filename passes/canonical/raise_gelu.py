"""Raise the tanh form of GELU written out to one op.

    %t = tanh((%x + 0.044715 * %x^3) * sqrt(2/pi))
    %y = (%x * 0.5) * (%t + 1)                    ==>     %y = gelu(%x) {approximate = tanh}

Why:    one vectorized kernel instead of eight nodes.
Needs:  the constants of the paper, to single precision; any order of factors.
Keeps:  algebra.
Stops:  each edit leaves one tanh fewer.
Source: arXiv:1606.08415; "gelu_new" and "gelu_fast" in transformers.
"""

from __future__ import annotations

import math

from fretsaw.ir import Graph, Node, Value
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.kit.match import either, made_by, scalar

CUBIC, SLOPE = 0.044715, math.sqrt(2 / math.pi)
CLOSE = 1e-6  # relative: constants pass through float32


@rule(root="mul", phase="canonical", keeps="algebra", rounds_constants=True)
def raise_gelu(root: Node, g: Graph) -> Edit | Decline | None:
    """``x / 2 * (1 + tanh(..))`` around the product ``root``."""
    for half, other in either(root):
        one = made_by(g, other, "add")
        tanh = (
            next((t for v, c in either(one) if _is(g, c, 1.0) and (t := made_by(g, v, "tanh"))), None) if one else None
        )
        if tanh is None:
            continue
        x = _times(g, half, 0.5)
        if x is None:
            return Decline("tanh + 1 is not multiplied by x / 2", at=root)
        inner = _times(g, tanh["x"], SLOPE)
        if inner is None or not _is_cubic(g, inner, x):
            return Decline("tanh is not of sqrt(2/pi) (x + 0.044715 x^3)", at=tanh)
        edit = Edit()
        edit.rewrite(root, "gelu", x, approximate="tanh")
        return edit
    return None


def _is(g: Graph, value: Value, number: float) -> bool:
    found = scalar(g, value)
    return found is not None and abs(found - number) <= CLOSE * abs(number)


def _times(g: Graph, value: Value, number: float) -> Value | None:
    """x when ``value`` is x times ``number``."""
    node = made_by(g, value, "mul")
    return next((v for v, c in either(node) if _is(g, c, number)), None) if node else None


def _is_cubic(g: Graph, value: Value, x: Value) -> bool:
    """``value`` is x + 0.044715 x^3."""
    add = made_by(g, value, "add")
    for straight, cubic in either(add) if add else ():
        if straight == x:
            cube = _times(g, cubic, CUBIC)
            node = made_by(g, cube, "pow") if cube is not None else None
            return node is not None and node["a"] == x and _is(g, node["b"], 3.0)
    return False
