"""Walk a packed graph and cover every node with kernel launches.

A launch stands where its last node stood, so all it reads exists by then and effects on the cache keep their order.
"""

from __future__ import annotations

from fretsaw.backends.program.covers import COVERS, Cover
from fretsaw.backends.program.options import ProgramOptions
from fretsaw.backends.program.plan import cache_policy, heads, key_bounds, segments
from fretsaw.backends.program.plan.attention import attention_sites
from fretsaw.backends.program.plan.context import Context
from fretsaw.backends.program.steps import Plan
from fretsaw.ir import Graph, HandleType, Node


def plan(graph: Graph, options: ProgramOptions) -> Plan:
    """Cover ``graph`` (phase packed, only ops that `covers.py` lowers).

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
    cover = COVERS[node.op]
    assert isinstance(cover, Cover)  # the others were refused before
    cover.load()(ctx, node)
