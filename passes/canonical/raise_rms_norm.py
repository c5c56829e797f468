"""Raise the spellings of RMSNorm to one op.

    %m = mean(mul(%x, %x)) {last, keepdims}       (or pow(%x, 2))
    %r = rsqrt(add(%m, eps))                      (or reciprocal(sqrt(..)), or div by sqrt(..))
    %y = mul(%x, %r)                     ==>      %y = rms_norm(%x) {eps}

    %n = rms_norm(%x)
    %y = mul(%n, gain)                   ==>      %y = rms_norm(%x, gain)

Why:    one kernel instead of six, and the handle that every later pass takes hold of.
Needs:  eps a constant scalar; the gain a constant along the last axis (Gemma's 1 + weight is folded before).
Keeps:  algebra: x * rsqrt(v) becomes x / sqrt(v), and the gain may change sides.
Stops:  each edit leaves one rsqrt, sqrt or mul fewer.
Source: arXiv:1910.07467.
"""

from __future__ import annotations

from collections.abc import Sequence

from fretsaw.ir import Graph, Node, Value
from fretsaw.passes.api import Decline, Edit, rule, rules
from fretsaw.passes.kit.match import either, flat_const, is_scalar, last_axis, made_by, scalar


@rule(root=("mul", "div"), phase="canonical", keeps="algebra")
def raise_plain_norm(root: Node, g: Graph) -> Edit | Decline | None:
    """``x * rsqrt(mean(x * x) + eps)`` as a norm without gain."""
    if root.op == "mul":
        for x, scale in either(root):
            variance = _below_rsqrt(g, scale)
            if variance is not None:
                return _norm(root, x, variance, g)
        return None
    root_of = made_by(g, root["b"], "sqrt")
    return None if root_of is None else _norm(root, root["a"], root_of["x"], g)


def _below_rsqrt(g: Graph, value: Value) -> Value | None:
    """v of rsqrt(v), reciprocal(sqrt(v)) or pow(v, -1/2)."""
    node = g.producer(value)
    if node is None:
        return None
    if node.op == "rsqrt":
        return node["x"]
    if node.op == "reciprocal":
        inner = made_by(g, node["x"], "sqrt")
        return None if inner is None else inner["x"]
    if node.op == "pow" and is_scalar(g, node["b"], -0.5):
        return node["a"]
    return None


def _norm(root: Node, x: Value, variance: Value, g: Graph) -> Edit | Decline | None:
    add = made_by(g, variance, "add")
    if add is None:
        return Decline("no eps is added to the mean of squares", at=g.producer(variance) or root)
    for mean_value, eps_value in either(add):
        mean, eps = made_by(g, mean_value, "mean"), scalar(g, eps_value)
        if mean is None or eps is None:
            continue
        if mean.attr("axis") != last_axis(mean["x"]) or not mean.attr("keepdims"):
            return Decline("the mean is not over the last axis", at=mean)
        if not _is_square(g, mean["x"], x):
            return Decline("the mean is not of the squares of what is scaled", at=mean)
        edit = Edit()
        edit.rewrite(root, "rms_norm", x, eps=eps)
        return edit
    return Decline("eps is not a constant scalar added to a mean", at=add)


def _is_square(g: Graph, value: Value, x: Value) -> bool:
    node = g.producer(value)
    if node is None:
        return False
    if node.op == "mul":
        return node.operands == (x, x)
    return node.op == "pow" and node["a"] == x and is_scalar(g, node["b"], 2.0)


@rule(root="mul", phase="canonical", keeps="algebra")
def absorb_gain(root: Node, g: Graph) -> Edit | Decline | None:
    """``rms_norm(x) * gain`` as one norm."""
    for normed, gain in either(root):
        norm = made_by(g, normed, "rms_norm")
        if norm is None or gain not in g.consts:
            continue
        if norm.get("gain") is not None:
            return Decline("the norm has a gain already", at=norm)
        width = norm.out.tensor.shape[-1]
        shape = gain.tensor.shape
        if not shape or shape[-1] != width or any(d != 1 for d in shape[:-1]) or root.out.type != norm.out.type:
            return Decline("the factor does not lie along the last axis", at=root)
        edit = Edit()
        flat = flat_const(edit, g, gain)
        edit.rewrite_node(root, "rms_norm", [norm["x"], flat], dict(norm.attrs))
        return edit
    return None


def norm_sites(graph: Graph) -> Sequence[Node]:
    """Every reciprocal root of a mean: the norms that have to be raised."""
    return [n for n in graph.nodes if n.op == "rsqrt"]


raise_rms_norm = rules(
    "raise_rms_norm", (raise_plain_norm, absorb_gain), doc=__doc__, phase="canonical", clears=norm_sites
)
