"""Analysis: the parts of a mixture's sum that is written out: expert projections, gates, routing weights."""

from __future__ import annotations

from dataclasses import dataclass

from fretsaw.ir import Attr, Graph, Node, Value
from fretsaw.passes.kit.match import either, last_axis, made_by, scalar, shape_of, squeezed

ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "relu": "relu"}


@dataclass(frozen=True)
class Projection:
    """One product of tokens with the weights of an expert each.

    Args:
        weight: Constant [E, O, I], or [E, I, O] when ``turned``.
        bias: Constant [E, O] before it is picked or reshaped, or None.
        ids: Experts i64[N] whose weights are picked, one a row; None: every expert works on every row.
        source: What is multiplied: rows [N, I], or [E, T, I] without ``ids``.
    """

    weight: Value
    turned: bool
    bias: Value | None
    ids: Value | None
    source: Value
    at: Node


def read_projection(g: Graph, value: Value) -> Projection | None:
    """The projection that makes ``value`` [N, O] or [E, T, O]."""
    node, bias = g.producer(value), None
    if node is not None and node.op == "add":
        pairs = [(_product(g, x), y) for x, y in either(node)]
        node, bias = next(((p, y) for p, y in pairs if p is not None), (None, None))
    product = _product(g, node.out) if node is not None else None
    if product is None:
        return None
    a, b = product.operands
    for weights, rows, turned in ((a, b, False), (b, a, True)):
        take = made_by(g, weights, "take")
        if take is not None and take["x"] in g.consts and take["x"].tensor.rank == 3:
            ids = take["index"]
            found = _picked(g, bias, ids) if bias is not None else None
            if bias is not None and found is None:
                return None
            width = rows.tensor.shape[-2] if weights == a else rows.tensor.shape[-1]
            return Projection(take["x"], turned, found, ids, _rows(g, rows, width), product)
    if b in g.consts and b.tensor.rank == 3 and a.tensor.rank == 3:
        return Projection(b, True, bias, None, a, product)
    return None


def _product(g: Graph, value: Value) -> Node | None:
    node = g.producer(value)
    while node is not None and node.op == "reshape" and squeezed(node["x"].tensor) == squeezed(node.out.tensor):
        node = g.producer(node["x"])
    return node if node is not None and node.op == "matmul" else None


def _picked(g: Graph, bias: Value, ids: Value) -> Value | None:
    take = made_by(g, bias, "take")
    return take["x"] if take is not None and take["index"] == ids and take["x"] in g.consts else None


def _rows(g: Graph, value: Value, width: object) -> Value:
    """[N, I] below the axis of length one that a batched product wants."""
    node = made_by(g, value, "reshape")
    if node is not None and node["x"].tensor.rank == 2 and node["x"].tensor.shape[-1] == width:
        return node["x"]
    return value


@dataclass(frozen=True)
class Gate:
    """The gated activation between two projections: attributes as in op ``experts``, and what it reads."""

    attrs: dict[str, Attr]
    source: Value


def read_gate(g: Graph, value: Value) -> Gate | str:
    """``act(gate) * up`` with both cut from one value, or what is strange about it."""
    root = made_by(g, value, "mul")
    if root is None:
        return "no product of gate and up between the projections"
    for left, right in either(root):
        act = made_by(g, left, *ACTIVATIONS)
        if act is not None:
            name = "gelu_tanh" if act.op == "gelu" and act.attr("approximate") == "tanh" else ACTIVATIONS[act.op]
            return _cut(g, act["x"], right, {"act": name})
        clamped = _clamped(g, left, right)
        if clamped is not None:
            gate, up, attrs = clamped
            return _cut(g, gate, up, attrs)
    return "the gate's activation is not known"


def _clamped(g: Graph, up: Value, gate: Value) -> tuple[Value, Value, dict[str, Attr]] | None:
    """``(clamp(up) + 1) * (gate' * sigmoid(alpha * gate'))`` with gate' = min(gate, limit)."""
    one, glu = made_by(g, up, "add"), made_by(g, gate, "mul")
    if one is None or glu is None or scalar(g, one["b"]) != 1.0:
        return None
    bounded = made_by(g, one["a"], "clamp")
    for low, high in either(glu):
        sigmoid, limited = made_by(g, high, "sigmoid"), made_by(g, low, "clamp")
        slope = made_by(g, sigmoid["x"], "mul") if sigmoid is not None else None
        alpha = scalar(g, slope["b"]) if slope is not None else None
        if bounded is None or limited is None or slope is None or alpha is None or slope["a"] != low:
            continue
        limit = bounded.attr("max")
        if not isinstance(limit, (int, float)) or bounded.attr("min") != -limit:
            return None
        if limited.attr("max") != limit or limited.attr("min") is not None:
            return None
        attrs: dict[str, Attr] = {"act": "clamped_swiglu", "limit": float(limit), "alpha": alpha}
        return limited["x"], bounded["x"], attrs
    return None


def _cut(g: Graph, gate: Value, up: Value, attrs: dict[str, Attr]) -> Gate | str:
    """Which layout the two slices of one value have."""
    a, b = made_by(g, gate, "slice"), made_by(g, up, "slice")
    if a is None or b is None or a["x"] != b["x"] or not a.attr("axis") == b.attr("axis") == last_axis(a["x"]):
        return "gate and up are not cut from one projection"
    width = shape_of(a["x"])[-1]
    bounds = tuple((n.attr("start"), n.attr("end"), n.attr("step")) for n in (a, b))
    if not isinstance(width, int) or width % 2:
        return "gate and up have different widths"
    half = width // 2
    if bounds == ((0, half, 1), (half, width, 1)):
        return Gate({**attrs, "layout": "concat"}, a["x"])
    if bounds[0][0::2] == (0, 2) and bounds[0][1] in (width - 1, width) and bounds[1] == (1, width, 2):
        return Gate({**attrs, "layout": "interleaved"}, a["x"])
    return "gate and up are neither halves nor alternating features"
