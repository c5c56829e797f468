"""Linears: panels, and the elementwise work around them as epilogue.

linear -> bias, activation, residual ...          one GEMM
linear -> (gate | up) -> act(gate) * up           one GEMM over panels of gate and up in turn
"""

from __future__ import annotations

from dataclasses import dataclass

from fretsaw.backends.tvm.plan.chain import Chain
from fretsaw.backends.tvm.plan.context import Context
from fretsaw.backends.tvm.specs import LinearSpec
from fretsaw.backends.tvm.steps import Arg, Tensor
from fretsaw.ir import Graph, Node, Value

GLU_ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu", "sigmoid")


def cover_linear(ctx: Context, node: Node) -> None:
    """Cover a linear with what can ride in its epilogue."""
    gated = match_glu(ctx.graph, node, ctx.covered)
    if gated is not None:
        _cover_glu(ctx, node, gated)
        return
    n, k = _features(node)
    weight = ctx.pool.panels([(ctx.const(node["weight"], node, "weight"), None)], node["weight"].name)
    chain = Chain(ctx.graph, (node.out,))
    bias = node.get("bias")
    if bias is not None:
        chain.start_with_bias(bias)
    chain.grow(ctx.covered)
    emit_linear(ctx, node["input"], weight, chain, [node, *chain.nodes], n, k)


def emit_linear(ctx: Context, x: Value, weight: Tensor, chain: Chain, nodes: list[Node], n: int, k: int) -> None:
    """One GEMM whose epilogue is ``chain``."""
    spec = LinearSpec(n, k, weight.type.dtype, chain.expr, tuple(chain.kinds))
    ctx.add(spec, [x, weight, *leaves(ctx, chain)], [chain.result], nodes)


def leaves(ctx: Context, chain: Chain) -> list[Arg]:
    """The chain's extra buffers as arguments; constants become tensors."""
    out: list[Arg] = []
    for value in chain.extra:
        const = ctx.graph.consts.get(value)
        out.append(value if const is None else ctx.pool.vector([(const, None)], value.name))
    return out


def _features(node: Node) -> tuple[int, int]:
    n, k = node["weight"].tensor.shape
    assert isinstance(n, int) and isinstance(k, int)
    return n, k


@dataclass(frozen=True)
class Gated:
    """A linear whose halves are gate and up.

    Args:
        gate, up: Output rows of the weight.
        nodes: Slices, activation and product.
    """

    gate: slice
    up: slice
    activation: str
    result: Value
    nodes: tuple[Node, ...]


def match_glu(graph: Graph, linear: Node, covered: set[int]) -> Gated | None:
    """``act(slice(y)) * slice(y)`` where both halves of y are read by nothing else."""
    uses = graph.uses(linear.out)
    n = linear.out.tensor.shape[-1]
    if linear.get("bias") is not None or linear.out in graph.output_set or len(uses) != 2 or not isinstance(n, int):
        return None
    slices = [u.node for u in uses]
    if any(s.op != "slice" or s.int_attr("axis") != linear.out.tensor.rank - 1 for s in slices):
        return None
    ranges = {id(s): slice(s.int_attr("start"), s.int_attr("end")) for s in slices}
    if sorted((r.start, r.stop) for r in ranges.values()) != [(0, n // 2), (n // 2, n)] or n % 2:
        return None
    for gate, up in (slices, slices[::-1]):
        act, product = graph.sole_use(gate.out), graph.sole_use(up.out)
        if act is None or product is None or product.node.op != "mul":
            continue
        name = activation_name(act.node)
        end = graph.sole_use(act.node.out) if name is not None else None
        if name is None or end is None or end.node is not product.node:
            continue
        nodes = (linear, gate, up, act.node, product.node)
        if any(id(x) in covered for x in nodes):
            return None
        return Gated(ranges[id(gate)], ranges[id(up)], name, product.node.out, nodes)
    return None


def activation_name(node: Node) -> str | None:
    """The kernels' name of an activation that a GLU epilogue knows."""
    if node.op == "gelu":
        return "gelu_tanh" if node.attr("approximate") == "tanh" else "gelu"
    return node.op if node.op in GLU_ACTIVATIONS else None


def _cover_glu(ctx: Context, node: Node, gated: Gated) -> None:
    n, k = _features(node)
    weight = ctx.pool.glu_panels(ctx.const(node["weight"], node, "weight"), gated.gate, gated.up, node["weight"].name)
    chain = Chain(ctx.graph, (gated.result,))
    chain.grow(ctx.covered)
    spec = LinearSpec(n // 2, k, weight.type.dtype, chain.expr, tuple(chain.kinds), gated.activation)
    ctx.add(spec, [node["input"], weight, *leaves(ctx, chain)], [chain.result], [*gated.nodes, *chain.nodes])
