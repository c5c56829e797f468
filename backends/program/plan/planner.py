"""Walk a packed graph and cover every node with kernel launches.

A launch stands where its last node stood, so all it reads exists by then and effects on the cache keep their order.
"""

from __future__ import annotations

from collections.abc import Sequence

from fretsaw.backends.program.options import ProgramOptions
from fretsaw.backends.program.plan import (
    cache_policy,
    dense,
    heads,
    key_bounds,
    misc,
    moe,
    segments,
    select,
    sparse_attention,
)
from fretsaw.backends.program.plan.attention import attention_sites
from fretsaw.backends.program.plan.context import Context
from fretsaw.backends.program.plan.refuse import refusal
from fretsaw.backends.program.steps import Plan
from fretsaw.ir import Graph, HandleType, Node


def plan(graph: Graph, options: ProgramOptions) -> Plan:
    """Cover ``graph`` (phase packed, only supported ops).

    Raises:
        LoweringError: a combination of supported ops that no kernel covers.
    """
    ctx = Context(graph, options)
    for site in attention_sites(graph):
        heads.cover_attention(ctx, site)
    for node in graph.nodes:
        if node.op == "segment_attention":
            segments.cover_segment_attention(ctx, node)
    key_bounds.cover_key_bounds(ctx)
    cache_policy.cover_keep_window(ctx)
    for node in graph.nodes:
        if id(node) in ctx.covered:
            continue
        _cover(ctx, node)
    inputs = tuple(v for v in graph.inputs if not isinstance(v.type, HandleType))
    return Plan(inputs, ctx.ordered(), graph.outputs, ctx.pool.tensors, ctx.aliases, ctx.planes, ctx.policy)


def _cover(ctx: Context, node: Node) -> None:
    if node.op == "linear":
        dense.cover_linear(ctx, node)
    elif node.op == "embedding":
        misc.cover_embedding(ctx, node)
    elif node.op in ("rms_norm", "layer_norm"):
        misc.cover_norm(ctx, node)
    elif node.op == "take":
        misc.cover_take(ctx, node)
    elif node.op == "reshape":
        ctx.alias(node)
    elif node.op == "slice":
        misc.cover_slice(ctx, node)
    elif node.op == "router":
        moe.cover_router(ctx, node)
    elif node.op == "experts":
        moe.cover_experts(ctx, node)
    elif node.op == "segment_pool":
        segments.cover_pool(ctx, node)
    elif node.op == "l2_norm":
        segments.cover_l2_norm(ctx, node)
    elif node.op == "block_attention":  # a second one of its layer
        sparse_attention.cover_block_attention(ctx, node)
    elif node.op in select.SELECT:
        select.cover_select(ctx, node)
    elif node.op == "gather_attention":
        sparse_attention.cover_gather_attention(ctx, node)
    elif node.op == "merge_attention":
        sparse_attention.cover_merge_attention(ctx, node)
    elif node.op in ("rope", "kv_append", "cached_attention", "cast"):
        raise refusal(ctx.graph, node, f"{node.op} stands where no kernel of the tvm backend covers it")
    else:
        misc.cover_elementwise(ctx, node)


def names(nodes: Sequence[Node]) -> tuple[str, ...]:
    return tuple(v.name for n in nodes for v in n.results)
