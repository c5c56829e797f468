"""Fold constants that are added to or multiplied with a projection into its weight and bias.

    %y = add(linear(%x, W, b?), c)           ==>      %y = linear(%x, W, b + c)
    %y = mul(linear(%x, W, b?), s)           ==>      %y = linear(%x, W * s, b * s)
    %y = linear(mul(%x, s), W, b?)           ==>      %y = linear(%x, W * s, b?)
    %y = add(add(%x, c), d)                  ==>      %y = add(%x, c + d)

Why:    one pass over the activation fewer for each.
Needs:  c a constant along the last axis, s a constant scalar; nothing else reads the projection, and its weight and
        bias have no second reader where they change. A weight that is multiplied is kept in its dtype: a format like
        bf16 would not hold the products.
Keeps:  algebra: sums and products are rounded in another order.
Stops:  each edit leaves one add or mul fewer.
Source: common practice (constant folding across affine maps).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fretsaw.ir import Const, Graph, Node, OpData, Value
from fretsaw.passes.api import Decline, Edit, rule, rules
from fretsaw.passes.kit.match import either, flat_const, made_by, narrow_reason, scalar


@rule(root="add", phase="fused", keeps="algebra")
def fold_added(root: Node, g: Graph) -> Edit | Decline | None:
    """A constant added to a projection becomes its bias."""
    for value, added in either(root):
        linear = made_by(g, value, "linear")
        if linear is None or added not in g.consts:
            continue
        width, bias = linear["weight"].tensor.shape[0], linear.get("bias")
        if g.sole_use(value) is None:
            return Decline("the projection is read elsewhere too", at=linear)
        if not _along_last(added, width) or root.out.type != value.type:
            return Decline(f"the constant {added.tensor} does not lie along the last axis of {value.tensor}", at=root)
        if bias is not None and bias not in g.consts:
            return Decline("the bias is computed", at=linear)
        edit = Edit()
        total = flat_const(edit, g, added)
        if bias is not None:
            flat = edit.consts.pop(total, None) or g.consts[added]
            total = edit.const(f"{bias.name}.sum", _lazy("add", g.consts[bias], flat))
        edit.rewrite_node(root, "linear", [linear["input"], linear["weight"], total], {}, linear.loc)
        return edit
    return None


@rule(root="mul", phase="fused", keeps="algebra")
def fold_scaled_output(root: Node, g: Graph) -> Edit | Decline | None:
    """A projection times a number: the number goes into weight and bias."""
    for value, factor in either(root):
        linear, number = made_by(g, value, "linear"), scalar(g, factor)
        if linear is None or number is None:
            continue
        if g.sole_use(value) is None:
            return Decline("the projection is read elsewhere too", at=linear)
        if root.out.type != value.type:
            return Decline("the product is wider than the projection", at=root)
        edit = Edit()
        params = _scaled(edit, g, linear, factor, linear.operands[1:])
        if isinstance(params, Decline):
            return params
        edit.rewrite_node(root, "linear", [linear["input"], *params], {}, linear.loc)
        return edit
    return None


@rule(root="linear", phase="fused", keeps="algebra")
def fold_scaled_input(root: Node, g: Graph) -> Edit | Decline | None:
    """A projection of a product with a number: the number goes into the weight."""
    product = made_by(g, root["input"], "mul")
    for x, factor in either(product) if product is not None else ():
        if scalar(g, factor) is None or x.type != root["input"].type:
            continue
        if g.sole_use(root["input"]) is None:
            return Decline("the scaled value is read elsewhere too", at=product or root)
        edit = Edit()
        params = _scaled(edit, g, root, factor, [root["weight"]])
        if isinstance(params, Decline):
            return params
        edit.rewrite(root, "linear", x, *params, *root.operands[2:])
        return edit
    return None


@rule(root="add", phase="fused", keeps="algebra")
def join_added(root: Node, g: Graph) -> Edit | Decline | None:
    """Two constants added one after the other are added as one."""
    for value, last in either(root):
        inner = made_by(g, value, "add")
        if inner is None or last not in g.consts:
            continue
        for x, first in either(inner):
            if first not in g.consts or x in g.consts:
                continue
            if g.sole_use(value) is None:
                return Decline("the first sum is read elsewhere too", at=inner)
            if first.type != last.type:
                return Decline(f"the constants {first.tensor} and {last.tensor} have different shapes", at=root)
            edit = Edit()
            edit.rewrite(root, "add", x, edit.const(f"{first.name}.sum", _lazy("add", g.consts[first], g.consts[last])))
            return edit
    return None


def _along_last(value: Value, width: object) -> bool:
    shape = value.tensor.shape
    return bool(shape) and shape[-1] == width and all(d == 1 for d in shape[:-1])


def _scaled(edit: Edit, g: Graph, linear: Node, factor: Value, params: Sequence[Value]) -> list[Value] | Decline:
    """``params`` of ``linear`` times a number, as new constants."""
    if any(v not in g.consts for v in params):
        return Decline("weight or bias is computed", at=linear)
    if any(len(g.uses(v)) > 1 for v in params):
        return Decline("weight or bias is tied; folding would fork it", at=linear)
    narrow = next(filter(None, (narrow_reason(g.consts[v]) for v in params)), "")
    if narrow:
        return Decline(narrow, at=linear)
    number = Const.of(np.asarray(g.consts[factor].load().flat[0]), factor.tensor.dtype)
    return [edit.const(f"{v.name}.scaled", _lazy("mul", g.consts[v], number)) for v in params]


def _lazy(op: str, a: Const, b: Const) -> Const:
    """``a op b`` with the type of ``a``, computed when loaded."""
    return Const(a.type, OpData(op, (a, b), ()))


fold_bias = rules(
    "fold_bias", (fold_added, fold_scaled_output, fold_scaled_input, join_added), doc=__doc__, phase="fused"
)
