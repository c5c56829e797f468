"""Mixture of experts: five launches per site, with work only for the experts that were chosen.

router   ->  route                                          index i32, weight
experts  ->  sort, gate_up + activation, down, combine      pairs (token, slot) sorted by expert, and back

What follows the sum elementwise (the residual addition) rides in ``combine``.
"""

from __future__ import annotations

import numpy as np

from fretsaw.backends.tvm.plan.chain import Chain
from fretsaw.backends.tvm.plan.context import Context
from fretsaw.backends.tvm.plan.dense import leaves
from fretsaw.backends.tvm.plan.refuse import refusal
from fretsaw.backends.tvm.specs_moe import CombineSpec, GroupedSpec, RouteSpec, SortSpec
from fretsaw.backends.tvm.steps import Arg
from fretsaw.ir import Const, Node, TensorType, Value


def cover_router(ctx: Context, node: Node) -> None:
    """Top-k and weights. The index is made as i32, so only ``experts`` may read it."""
    index, weight = node.results
    others = [u.node for u in ctx.graph.uses(index) if u.node.op != "experts"]
    if others or index in ctx.graph.output_set:
        reader = f"%{others[0].results[0].name} ({others[0].op})" if others else "the graph's outputs"
        what = f"router: the index must be read by experts alone for the tvm backend, is read by {reader}"
        raise refusal(ctx.graph, node, what)
    experts, slots = _int(node["logits"], 1), node.int_attr("k")
    spec = RouteSpec(experts, slots, node.str_attr("softmax") == "before", bool(node.attr("normalize")))
    ctx.add(spec, [node["logits"]], [_narrow(index), weight], [node])


def _narrow(index: Value) -> Value:
    """The i32 value that stands for the router's i64 index; made by name, so that writer and readers agree."""
    return Value(f"{index.name}.i32", TensorType("i32", index.tensor.shape))


def cover_experts(ctx: Context, node: Node) -> None:
    """Sort, two grouped GEMMs, and the weighted sum.

    Raises:
        LoweringError: the index comes from no router, or weights or biases are computed.
    """
    made_by = ctx.graph.producer(node["index"])
    if made_by is None or made_by.op != "router":
        source = "an input" if made_by is None else made_by.op
        what = f"experts: the index must come from a router for the tvm backend, comes from {source}"
        raise refusal(ctx.graph, node, what, slot="index")
    experts, width, hidden = (_int(node["down"], i) for i in range(3))
    slots, tokens = _int(node["index"], 1), node["x"].tensor.shape[0]
    pairs, base = tokens * slots, node.out.name
    offsets = ctx.temporary(f"{base}.offsets", "i32", (experts + 1,))
    order = ctx.temporary(f"{base}.order", "i32", (pairs,))
    inner = ctx.temporary(f"{base}.inner", "f32", (pairs, hidden))
    outer = ctx.temporary(f"{base}.outer", "f32", (pairs, width))
    chain = Chain(ctx.graph, (node.out,))
    chain.grow(ctx.covered)
    ctx.add(SortSpec(experts, slots), [_narrow(node["index"])], [offsets, order], [], at=node)

    interleaved = node.str_attr("layout") == "interleaved"
    gate_up = ctx.pool.expert_glu_panels(ctx.const(node["gate_up"], node, "gate_up"), interleaved, node["gate_up"].name)
    inputs: list[Arg] = [node["x"], offsets, order, gate_up, *_halves(ctx, node, interleaved)]
    act, clamped = node.str_attr("act"), node.str_attr("act") == "clamped_swiglu"
    up = GroupedSpec(
        experts, hidden, width, gate_up.type.dtype, slots, act, _limit(ctx, node) if clamped else 0.0,
        node.float_attr("alpha") if clamped else 0.0, node.get("gate_up_bias") is not None,
    )  # fmt: skip
    ctx.add(up, inputs, [inner], [], at=node)

    down = ctx.pool.expert_panels(ctx.const(node["down"], node, "down"), node["down"].name)
    bias = node.get("down_bias")
    added = [] if bias is None else [_vector(ctx, ctx.const(bias, node, "down_bias"), bias.name)]
    spec = GroupedSpec(experts, width, hidden, down.type.dtype, bias=bias is not None)
    ctx.add(spec, [inner, offsets, order, down, *added], [outer], [], at=node)
    last = CombineSpec(width, slots, chain.expr, tuple(chain.kinds))
    ctx.add(last, [outer, node["weight"], *leaves(ctx, chain)], [chain.result], [node, *chain.nodes])


def _limit(ctx: Context, node: Node) -> float:
    limit = node.attr("limit")
    if not isinstance(limit, (int, float)):
        raise refusal(ctx.graph, node, "experts: clamped_swiglu needs a limit", attr="act")
    return float(limit)


def _halves(ctx: Context, node: Node, interleaved: bool) -> list[Arg]:
    """Biases of gate and up, apart, each [E*F]."""
    value = node.get("gate_up_bias")
    if value is None:
        return []
    const = ctx.const(value, node, "gate_up_bias")
    experts, both = _int(value, 0), _int(value, 1)
    number = np.arange(experts * both, dtype=np.int64).reshape(experts, both)
    gate, up = (number[:, 0::2], number[:, 1::2]) if interleaved else np.split(number, 2, axis=1)
    parts = ((gate, "gate"), (up, "up"))
    return [ctx.pool.vector([(const, rows.reshape(-1))], f"{value.name}.{name}") for rows, name in parts]


def _vector(ctx: Context, const: Const, name: str) -> Arg:
    """A matrix of small vectors, flat."""
    size = int(np.prod([d for d in const.type.shape if isinstance(d, int)]))
    return ctx.pool.vector([(const, np.arange(size, dtype=np.int64))], name)


def _int(value: Value, axis: int) -> int:
    size = value.tensor.shape[axis]
    assert isinstance(size, int)
    return size
