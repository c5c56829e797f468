"""Embeddings, norms, row selection, slices, and elementwise work that no GEMM took along."""

from __future__ import annotations

from fretsaw.backends.tvm.plan.chain import Chain
from fretsaw.backends.tvm.plan.context import Context
from fretsaw.backends.tvm.plan.dense import leaves
from fretsaw.backends.tvm.plan.refuse import refusal
from fretsaw.backends.tvm.specs import CopySpec, ElementwiseSpec, EmbeddingSpec, NormSpec, TakeSpec
from fretsaw.backends.tvm.steps import Arg
from fretsaw.ir import Node


def _width(node: Node) -> int:
    width = node.out.tensor.shape[-1]
    assert isinstance(width, int)
    return width


def cover_embedding(ctx: Context, node: Node) -> None:
    """Rows of the table, in the panels of the output head where it has the same; a constant factor that follows is
    taken along."""
    table = ctx.const(node["table"], node, "table")
    tied = any(use.node.op == "linear" for use in ctx.graph.uses(node["table"]))
    tensor = ctx.pool.panels([(table, None)], node["table"].name) if tied else ctx.pool.table(table, node["table"].name)
    chain = Chain(ctx.graph, (node.out,))
    chain.grow(ctx.covered)
    scale, nodes, out = 1.0, [node], node.out
    match chain.expr:
        case ("mul", ("leaf", 0), ("const", float(factor))) | ("mul", ("const", float(factor)), ("leaf", 0)):
            scale, nodes, out = factor, [node, *chain.nodes], chain.result
    vocabulary, width = node["table"].tensor.shape
    assert isinstance(vocabulary, int) and isinstance(width, int)
    ctx.add(EmbeddingSpec(vocabulary, width, tensor.type.dtype, scale, tied), [node["ids"], tensor], [out], nodes)


def cover_norm(ctx: Context, node: Node) -> None:
    """RMSNorm or LayerNorm over rows [T, D] or heads [T, H, D]."""
    inputs: list[Arg] = [node["x"]]
    for slot in ("gain", "bias"):
        value = node.get(slot) if not (node.op == "rms_norm" and slot == "bias") else None
        if value is not None:
            inputs.append(ctx.pool.vector([(ctx.const(value, node, slot), None)], value.name))
    shape = node.out.tensor.shape
    if len(shape) not in (2, 3):
        raise refusal(ctx.graph, node, f"{node.op} over {node.out.type} has no kernel")
    heads = int(shape[1]) if len(shape) == 3 else 0  # type: ignore[arg-type]
    kind = "rms" if node.op == "rms_norm" else "layer"
    spec = NormSpec(_width(node), node.float_attr("eps"), kind, len(inputs) > 1, len(inputs) > 2, heads)
    ctx.add(spec, inputs, [node.out], [node])


def cover_take(ctx: Context, node: Node) -> None:
    """Rows of a value [T, D] or [T, H, E]."""
    x, rows = node.operands
    tokens, *features = x.tensor.shape
    width = 1
    for size in features:
        assert isinstance(size, int)
        width *= size
    if len(features) == 1:
        ctx.add(TakeSpec(width), [x, rows], [node.out], [node])
        return
    source = ctx.temporary(x.name, "f32", (tokens, width))
    picked = ctx.temporary(node.out.name, "f32", (*rows.tensor.shape, width))
    ctx.aliases.update({source: x, node.out: picked})
    ctx.add(TakeSpec(width), [source, rows], [picked], [node])


def cover_slice(ctx: Context, node: Node) -> None:
    """Columns of a value [T, W] that no kernel reads in place."""
    x = node["x"]
    if x.tensor.rank != 2 or node.int_attr("axis") != 1 or node.int_attr("step") != 1:
        raise refusal(ctx.graph, node, f"slice of {x.type} has no kernel", slot="x")
    source = x.tensor.shape[1]
    assert isinstance(source, int)
    ctx.add(CopySpec(source, node.int_attr("start"), _width(node)), [x], [node.out], [node])


def cover_elementwise(ctx: Context, node: Node) -> None:
    """A chain of elementwise ops as one pass over memory."""
    shape = node.out.tensor.shape
    full = [v for v in node.operands if v not in ctx.graph.consts and v.tensor.shape == shape]
    if len(shape) != 2 or not full:
        raise refusal(ctx.graph, node, f"{node.op} over {node.out.type} has no kernel")
    chain = Chain(ctx.graph, (full[0],))
    if not chain.can_absorb(node):
        raise refusal(ctx.graph, node, f"{node.op} over {node.out.type} has no kernel")
    chain.take(node)
    chain.grow(ctx.covered)
    spec = ElementwiseSpec(_width(node), chain.expr, ("full", *chain.kinds))
    ctx.add(spec, [full[0], *leaves(ctx, chain)], [chain.result], chain.nodes)
