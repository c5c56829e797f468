"""Compute at compile time what depends on constants alone.

    %c = op(const, const)             ==>     const %c

Why:    patterns then see a constant where the model's code computes one (Gemma's 1 + weight).
Needs:  every operand constant, a static result, no symbol in an attribute, no effects.
Keeps:  bits: the op's reference computes the value, now or when it is first loaded.
Stops:  each edit leaves one node fewer.
Source: common practice.

Small results of constants in memory are computed now. Anything that would load a checkpoint's weights stays lazy:
the constant remembers the op and its operands.
"""

from __future__ import annotations

import numpy as np

from fretsaw.ir import ArrayData, Attr, Const, Dim, Graph, Node, OpData, get_op
from fretsaw.passes.api import Decline, Edit, rule

SMALL = 1 << 16  # elements; a table of this size costs nothing to hold while compiling


@rule(root=("*",), phase="canonical", keeps="bits")
def fold_constants(node: Node, g: Graph) -> Edit | Decline | None:
    """Replace the results of ``node`` by constants."""
    if any(v not in g.consts for v in node.operands) or get_op(node.op).handles or not node.results:
        return None
    if not all(v.tensor.is_static for v in node.results):
        return None if not node.operands else Decline("the result has a symbolic dimension", at=node)
    if any(v in g.output_set for v in node.results):
        return Decline("a graph output stays computed", at=node)
    if any(_symbolic(v) for _, v in node.attrs):
        return Decline("an attribute is symbolic", at=node)
    operands = [g.consts[v] for v in node.operands]
    edit = Edit()
    for i, value in enumerate(node.results):
        try:
            folded = _fold(node, operands, i)
        except (IndexError, OverflowError, ValueError) as error:  # it would fail whenever it ran: not ours to say when
            return Decline(f"its reference refuses these constants: {error}", at=node)
        edit.redirect(value, edit.const(value.name, folded))
    return edit


def _symbolic(attr: Attr) -> bool:
    return isinstance(attr, Dim) or (isinstance(attr, tuple) and any(map(_symbolic, attr)))


def _fold(node: Node, operands: list[Const], result: int) -> Const:
    kind = node.results[result].tensor
    lazy = OpData(node.op, tuple(operands), node.attrs, result)
    small = isinstance(kind.numel, int) and kind.numel <= SMALL
    if small and all(isinstance(c.data, ArrayData) for c in operands):
        with np.errstate(all="ignore"):  # infinity and NaN are results here, as when the program runs
            return Const.of(lazy.load().copy(), kind.dtype)
    return Const(kind, lazy)
