"""Raise a mixture of experts written out to one op.

    %i, %w = indices and weights [T, k]
    %g = matmul(take(gate_up, %i flat), %x repeated k times)         one product a token and expert
    %h = act(%g[:F]) * %g[F:]
    %d = matmul(take(down, %i flat), %h)
    %y = sum(reshape(%d * %w flat, [T, k, D])) over k       ==>      %y = experts(%x, %i, %w, gate_up, down)

    %g = matmul(%x for every expert, gate_up^T)                      every expert on every token
    %d = matmul(act(%g[:F]) * %g[F:], down^T)                        [E, T, D]
    %y = sum(%d * scatter(0, %i, %w)^T) over E              ==>      the same

Why:    the products of tokens that chose an expert are one product; statistics, quantization and placement of experts
        take hold of it.
Needs:  gate and up cut from one projection, as halves or alternating; biases of both projections or of none.
Keeps:  algebra: the sum over experts has another order; experts of weight zero are left out.
Stops:  each edit leaves one sum of weighted expert outputs fewer.
Source: Mixtral, arXiv:2401.04088; transformers' batched_mm experts; the clamped gate of gpt-oss, arXiv:2508.10925.
"""

from __future__ import annotations

from collections.abc import Sequence

from fretsaw.ir import Const, Graph, Node, OpData, TensorType, Value
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.canonical.expert_parts import Projection, read_gate, read_projection
from fretsaw.passes.canonical.expert_routes import dense_routes, picked_routes
from fretsaw.passes.kit.match import either, made_by, squeezed

TURN = (0, 2, 1)


def expert_sums(graph: Graph) -> Sequence[Node]:
    """Sums of weighted outputs of experts."""
    return [n for n in graph.nodes if n.op == "sum" and _weighted(graph, n) is not None]


def _weighted(g: Graph, root: Node) -> tuple[Projection, Value] | None:
    """The last projection of the experts and the weights that it is multiplied by."""
    summed = root["x"]
    reshape = made_by(g, summed, "reshape")
    product = made_by(g, reshape["x"] if reshape is not None else summed, "mul")
    for rows, weight in either(product) if product is not None else ():
        down = read_projection(g, rows)
        if down is not None:
            return down, weight
    return None


@rule(root="sum", phase="canonical", keeps="algebra", clears=expert_sums)
def raise_experts(root: Node, g: Graph) -> Edit | Decline | None:
    """The mixture that the sum ``root`` ends."""
    found = _weighted(g, root)
    if found is None:
        return None
    down, weighting = found
    gate = read_gate(g, down.source)
    if isinstance(gate, str):
        return Decline(gate, at=down.at)
    up = read_projection(g, gate.source)
    if up is None:
        return Decline("gate and up do not come from weights picked by expert", at=g.producer(gate.source) or root)
    if up.ids != down.ids or (up.bias is None) != (down.bias is None):
        return Decline("the two projections differ in experts or in having a bias", at=up.at)
    if root.attr("keepdims"):
        return Decline("the sum keeps its axis", at=root)
    edit = Edit()
    parts = picked_routes(g, root, up, weighting) if up.ids is not None else dense_routes(g, root, up, weighting)
    if isinstance(parts, Decline):
        return parts
    weights = [_upright(edit, g, p.weight, p.turned) for p in (up, down)]
    biases = [_flat_rows(edit, g, p.bias) for p in (up, down) if p.bias is not None]
    if None in biases:
        return Decline("a bias is no constant of one row an expert", at=down.at)
    edit.rewrite_node(root, "experts", [*parts, *weights, *(b for b in biases if b is not None)], gate.attrs)
    return edit


def _upright(edit: Edit, g: Graph, value: Value, turned: bool) -> Value:
    """The weight as [E, O, I], lazily; a transpose of a transpose is none."""
    if not turned:
        return value
    const = g.consts[value]
    data = const.data
    if isinstance(data, OpData) and data.op == "transpose" and dict(data.attrs)["perm"] == TURN:
        return edit.const(f"{value.name}.upright", data.operands[0])
    experts, inner, outer = const.type.shape
    kind = TensorType(const.type.dtype, (experts, outer, inner))
    return edit.const(f"{value.name}.upright", Const(kind, OpData("transpose", (const,), (("perm", TURN),))))


def _flat_rows(edit: Edit, g: Graph, bias: Value) -> Value | None:
    """A bias [E, O], or [E, 1, O] without its middle axis."""
    kind = bias.tensor
    if bias not in g.consts or len(squeezed(kind)) != 2:
        return None
    if kind.rank == 2:
        return bias
    const, shape = g.consts[bias], squeezed(kind)
    return edit.const(
        f"{bias.name}.flat", Const(TensorType(kind.dtype, shape), OpData("reshape", (const,), (("shape", shape),)))
    )
