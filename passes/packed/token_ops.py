"""How each op of a padded program [B, S, ...] reads when packed [T, ...]; anything unknown is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fretsaw.ir import Attr, GraphBuilder, Node, Shape, Value, get_op
from fretsaw.passes.packed.token_axes import Lead, TokenAxes

Packed = tuple[str, list[Value], dict[str, Attr]]


def pack_node(axes: TokenAxes, node: Node, operands: Sequence[Value], build: GraphBuilder) -> Packed:
    """Op, operands and attributes of the packed form of ``node``; ``operands`` are packed already.

    Raises:
        PassError: the node mixes tokens, or no rule is known for its op.
    """
    for value in node.results:
        axes.packed(value.tensor.shape, node)
    op = get_op(node.op)
    if op.elementwise:
        return node.op, _aligned(axes, node, operands, build), dict(node.attrs)
    handler = HANDLERS.get(node.op) or BY_ROWS.get(op.rows)
    if handler is None:
        raise axes.mixes(node, "no packed form is known for this op")
    return node.op, list(operands), handler(axes, node)


def _aligned(axes: TokenAxes, node: Node, operands: Sequence[Value], build: GraphBuilder) -> list[Value]:
    """Operands of an elementwise op; constants that have axes where the tokens were lose one of them."""
    rank, lead = node.out.tensor.rank, axes.lead(node.out)
    out: list[Value] = []
    for old, new in zip(node.operands, operands, strict=True):
        if axes.holds_tokens(old):
            if axes.lead(old) is not lead or old.tensor.rank != rank:
                raise axes.mixes(node, f"%{old.name} {old.type} is broadcast over tokens")
        elif any(d != 1 for d in _over_tokens(old.tensor.shape, rank, lead)):
            raise axes.mixes(node, f"%{old.name} {old.type} differs from token to token")
        elif lead is Lead.BATCH and old.tensor.rank == rank:
            new = build.emit("reshape", new, name=f"{new.name}.packed", loc=node.loc, shape=old.tensor.shape[1:])
        out.append(new)
    return out


def _over_tokens(shape: Shape, rank: int, lead: Lead) -> Shape:
    """The axes of a broadcast operand that face token axes."""
    return shape[: max(0, len(shape) - rank + lead.axes)]


def _lead(axes: TokenAxes, node: Node) -> int:
    """Number of token axes of the first operand with tokens, which the results must share."""
    first = next((v for v in node.operands if axes.holds_tokens(v)), node.out)
    lead = axes.lead(first)
    if lead is Lead.NONE:
        raise axes.mixes(node, f"%{first.name} {first.type} does not begin with the tokens")
    if any(axes.lead(v) is not lead for v in node.results):
        raise axes.mixes(node, "it moves the token axes")
    return lead.axes


def _rowwise(axes: TokenAxes, node: Node) -> dict[str, Attr]:
    if node.op == "linear" and axes.holds_tokens(node["weight"]):
        raise axes.mixes(node, "its weight is made of tokens")
    _lead(axes, node)
    return dict(node.attrs)


def _along_axis(axes: TokenAxes, node: Node) -> dict[str, Attr]:
    lead, axis = _lead(axes, node), node.int_attr("axis")
    if axis < lead:
        raise axes.mixes(node, f"it works along axis {axis}, which holds tokens")
    if any(not axes.holds_tokens(v) for v in node.operands):
        raise axes.mixes(node, "one operand has tokens and another has none")
    return {**dict(node.attrs), "axis": axis - lead + 1}


def _topk(axes: TokenAxes, node: Node) -> dict[str, Attr]:
    if node["x"].tensor.rank <= _lead(axes, node):
        raise axes.mixes(node, "it chooses among tokens")
    return dict(node.attrs)


def _shaped(axes: TokenAxes, node: Node) -> dict[str, Attr]:
    shape = axes.packed(node.out.tensor.shape, node)
    if node.operands:
        inner = axes.packed(node["x"].tensor.shape, node)
        if axes.lead(node["x"]) is not axes.lead(node.out) and Lead.SEQUENCE in map(axes.lead, (node["x"], node.out)):
            raise axes.mixes(node, "it makes tokens of sequences or sequences of tokens")
        if node.op == "expand" and (len(inner) != len(shape) or inner[0] != shape[0]):
            raise axes.mixes(node, "it repeats tokens")
    return {**dict(node.attrs), "shape": shape}


def _transpose(axes: TokenAxes, node: Node) -> dict[str, Attr]:
    perm = node.ints_attr("perm")
    lead = axes.lead(node["x"]).axes
    if lead == 0 or perm[:lead] != tuple(range(lead)):
        raise axes.mixes(node, "it moves the token axes")
    return {"perm": (0, *(p - lead + 1 for p in perm[lead:]))}


def _matmul(axes: TokenAxes, node: Node) -> dict[str, Attr]:
    a, b = node["a"], node["b"]
    lead = _lead(axes, node)
    if axes.holds_tokens(b):
        if axes.lead(b).axes != lead or min(a.tensor.rank, b.tensor.rank) < lead + 2:
            raise axes.mixes(node, "it multiplies across tokens")
    elif b.tensor.rank != 2 or a.tensor.rank <= lead:
        raise axes.mixes(node, "the constant factor has a batch")
    return {}


Handler = Callable[[TokenAxes, Node], dict[str, Attr]]
BY_ROWS: dict[str, Handler] = {"each": _rowwise, "axis": _along_axis}  # what an op says of the axes in front
HANDLERS: dict[str, Handler] = {
    "topk": _topk, "reshape": _shaped, "expand": _shaped, "full": _shaped, "transpose": _transpose,
    "matmul": _matmul,
}  # fmt: skip
