"""Analysis: which tokens go to which experts with what weight, in a mixture's sum that is written out."""

from __future__ import annotations

from fretsaw.ir import Graph, Node, Value
from fretsaw.passes.canonical.expert_parts import Projection
from fretsaw.passes.kit.edit import Decline
from fretsaw.passes.kit.match import made_by, scalar


def picked_routes(g: Graph, root: Node, up: Projection, weighting: Value) -> list[Value] | Decline:
    """x [T, D], indices and weights [T, k] where weights are picked row by row."""
    assert up.ids is not None
    x = _unrepeated(g, up.source)
    if x is None:
        return Decline("the rows are not every token repeated once an expert", at=g.producer(up.source) or root)
    tokens = x.tensor.shape[0]
    sides: list[Value] = []
    for value in (up.ids, weighting):
        flat = _below_reshapes(g, value)
        if flat.tensor.rank != 2 or flat.tensor.shape[0] != tokens:
            return Decline(f"{value.tensor} is no choice of each token [T, k]", at=g.producer(value) or root)
        sides.append(flat)
    k = sides[0].tensor.shape[1]
    if sides[1].tensor.shape[1] != k or root["x"].tensor.shape != (tokens, k, x.tensor.shape[1]):
        return Decline("the sum is not over the chosen experts [T, k, D]", at=root)
    return [x, *sides] if root.attr("axis") == 1 else Decline("the sum is not over the chosen experts", at=root)


def dense_routes(g: Graph, root: Node, up: Projection, weighting: Value) -> list[Value] | Decline:
    """x [T, D], indices and weights [T, k] where every expert works on every token."""
    expand = made_by(g, up.source, "expand")
    x = _below_reshapes(g, expand["x"]) if expand is not None else up.source
    experts = up.weight.tensor.shape[0]
    if expand is None or x.tensor.rank != 2 or up.source.tensor.shape != (experts, *x.tensor.shape):
        return Decline("the experts do not all read the same tokens [T, D]", at=expand or up.at)
    if root.attr("axis") != 0 or root["x"].tensor.shape != (experts, *x.tensor.shape):
        return Decline("the sum is not over all experts [E, T, D]", at=root)
    turned = made_by(g, _below_reshapes(g, weighting), "transpose")
    matrix = made_by(g, turned["x"], "scatter") if turned is not None else None
    if matrix is None or turned is None or turned.attr("perm") != (1, 0) or matrix.attr("axis") != 1:
        return Decline("the weights are not scattered by the choice of experts", at=g.producer(weighting) or root)
    base = made_by(g, matrix["x"], "full")
    if base.attr("value") != 0 if base is not None else scalar(g, matrix["x"]) != 0:
        return Decline("experts that are not chosen have a weight", at=matrix)
    if weighting.tensor.shape != (experts, x.tensor.shape[0], 1):
        return Decline("the weights are not [E, T, 1]", at=root)
    return [x, matrix["index"], matrix["src"]]


def _unrepeated(g: Graph, rows: Value) -> Value | None:
    """x [T, D] when ``rows`` [T*k, D] are its rows, each k times."""
    merge = made_by(g, rows, "reshape")
    expand = made_by(g, merge["x"], "expand") if merge is not None else None
    split = made_by(g, expand["x"], "reshape") if expand is not None else None
    if expand is None or split is None or split["x"].tensor.rank != 2:
        return None
    tokens, size = split["x"].tensor.shape
    wide = expand.out.tensor.shape
    return split["x"] if split.out.tensor.shape == (tokens, 1, size) and wide == (tokens, wide[1], size) else None


def _below_reshapes(g: Graph, value: Value) -> Value:
    while (node := made_by(g, value, "reshape")) is not None:
        value = node["x"]
    return value
