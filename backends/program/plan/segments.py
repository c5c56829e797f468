"""Encoders: one attention layer within segments, pooling and normalization.

qkv = gemm(x, packed rows of q, k, v)
o   = varlen_attention(qkv, cos, sin, cu)       rotation, keys and values laid out, softmax; no cache
"""

from __future__ import annotations

from fretsaw.backends.program.plan.attention import AttentionSite, branch_of, check_rope
from fretsaw.backends.program.plan.context import Context
from fretsaw.backends.program.plan.heads import angles_of, flat, project
from fretsaw.backends.program.plan.refuse import refusal
from fretsaw.backends.program.specs.segments import PoolSpec, UnitSpec, VarlenSpec
from fretsaw.backends.program.steps import Arg
from fretsaw.ir import Node, Value


def cover_segment_attention(ctx: Context, node: Node) -> None:
    """Plan the launches of one layer."""
    q, k, v = (branch_of(ctx.graph, node[slot]) for slot in ("q", "k", "v"))
    site = AttentionSite(node, node, q, k, v)
    check_rope(ctx.graph, site)
    for norm in (q.norm, k.norm):
        if norm is not None:
            raise refusal(ctx.graph, norm, "norms of heads have no kernel in attention within segments")
    angles, pairs, layout = ([], 0, "half") if q.rope is None else angles_of(ctx, site)
    fused = site.is_fused(ctx.graph)
    projected = [project(ctx, site)] if fused else [flat(ctx, b) for b in (q, k, v)]
    _, heads, size = (_int(d) for d in (0, *node["q"].tensor.shape[1:]))
    _, kv_heads, value_size = (_int(d) for d in (0, *node["v"].tensor.shape[1:]))
    sinks = node.get("sinks")
    spec = VarlenSpec(
        heads, kv_heads, size, value_size, pairs, layout, node.float_attr("scale"), bool(node.attr("causal")),
        node.int_attr("window"), node.float_attr("softcap"), sinks is not None, separate=not fused,
    )  # fmt: skip
    inputs: list[Arg] = [*projected, *angles, node["cu"]]
    if sinks is not None:
        inputs.append(ctx.pool.vector([(ctx.const(sinks, node, "sinks"), None)], sinks.name))
    out = ctx.temporary(node.out.name, "f32", (node.out.tensor.shape[0], heads * value_size))
    ctx.aliases[node.out] = out
    ctx.add(spec, inputs, [out], [*q.nodes, *k.nodes, node], at=node)


def cover_pool(ctx: Context, node: Node) -> None:
    """One row per sequence."""
    spec = PoolSpec(_int(node.out.tensor.shape[1]), node.str_attr("kind"))
    ctx.add(spec, [node["x"], node["cu"]], [node.out], [node])


def cover_l2_norm(ctx: Context, node: Node) -> None:
    """Rows of length one."""
    x: Value = node["x"]
    if x.tensor.rank != 2:
        raise refusal(ctx.graph, node, f"l2_norm over {x.type} has no kernel", slot="x")
    ctx.add(UnitSpec(_int(x.tensor.shape[1]), node.float_attr("eps")), [x], [node.out], [node])


def _int(dim: object) -> int:
    assert isinstance(dim, int)
    return dim
