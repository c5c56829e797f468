"""Drop nodes that return an operand unchanged.

    %y = reshape(%x) {shape = shape of %x}
    %y = transpose(%x) {perm = [0, 1, ...]}
    %y = expand(%x) {shape = shape of %x}        ==>     readers of %y read %x
    %y = slice(%x) {start = 0, end = all}
    %y = cast(%x) {dtype = dtype of %x}
    %y = add(%x, 0)   sub(%x, 0)   mul(%x, 1)   div(%x, 1)   pow(%x, 1)   concat(%x, empty)
    %y = neg(neg(%x))   logical_not(logical_not(%x))   clamp(%x) without bounds
    %y = relu(relu(%x))   abs(abs(%x))           ==>     readers of %y read the first of the two

Why:    captured graphs are full of them, and every pattern would have to look through them.
Needs:  the result has the operand's type. For add of 0, a type of integers or any reader blind to the sign of zero.
Keeps:  bits, but that add of +0 turns -0 into +0, which compares equal.
Stops:  each edit leaves one node fewer.
Source: common practice.
"""

from __future__ import annotations

from fretsaw.ir import Graph, Node, Value
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.kit.match import is_scalar, made_by

IDENTITY = ("reshape", "transpose", "expand", "slice", "cast", "concat")
NEUTRAL = {"add": 0.0, "sub": 0.0, "mul": 1.0, "div": 1.0, "pow": 1.0}
TWICE_NOTHING = ("neg", "logical_not")
TWICE_ONCE = ("relu", "abs")


@rule(root=(*IDENTITY, *NEUTRAL, *TWICE_NOTHING, *TWICE_ONCE, "clamp"), phase="canonical", keeps="bits")
def drop_noops(node: Node, g: Graph) -> Edit | Decline | None:
    """Redirect the readers of ``node`` to the operand that it returns unchanged."""
    same = _unchanged(node, g)
    if same is None:
        return None
    edit = Edit()
    edit.redirect(node.out, same)
    return edit


def _unchanged(node: Node, g: Graph) -> Value | None:
    if node.op in IDENTITY:
        filled = [v for v in node.operands if 0 not in v.tensor.shape] if node.op == "concat" else [node.operands[0]]
        if len(filled) != 1 or filled[0].type != node.out.type:
            return None
        x = filled[0]
        if node.op == "transpose":
            return x if node.ints_attr("perm") == tuple(range(x.tensor.rank)) else None
        return x
    if node.op == "clamp":
        return node["x"] if node.attr("min") is None and node.attr("max") is None else None
    if node.op in TWICE_NOTHING or node.op in TWICE_ONCE:
        inner = made_by(g, node["x"], node.op)
        if inner is None or inner["x"].type != node.out.type:  # twice not of a number says whether it is zero
            return None
        return inner["x"] if node.op in TWICE_NOTHING else inner.out
    a, b = node.operands
    neutral = NEUTRAL[node.op]
    if a.type == node.out.type and is_scalar(g, b, neutral):
        return a
    if node.op in ("add", "mul") and b.type == node.out.type and is_scalar(g, a, neutral):
        return b
    return None
