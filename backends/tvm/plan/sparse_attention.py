"""Cover attention over listed blocks: in the place of a layer's attention, or beside it over the same queries."""

from __future__ import annotations

from fretsaw.backends.tvm.plan.context import Context
from fretsaw.backends.tvm.plan.refuse import refusal
from fretsaw.backends.tvm.specs_sparse_attention import BlockAttentionSpec, GatherAttentionSpec, MergeAttentionSpec
from fretsaw.backends.tvm.steps import Arg, CacheSlot
from fretsaw.ir import Node, Value
from fretsaw.ir.kv import BLOCK

CACHE = ("k_pages", "v_pages", "table", "lens", "cu")


def cover_block_attention(ctx: Context, node: Node) -> None:
    """Plan the launch of a ``block_attention``; its queries and its layer's append are planned."""
    check_pages(ctx, node)
    heads, size, kv_heads, value_size = geometry(ctx, node)
    lists = node["idx"].tensor.shape[1]
    assert isinstance(lists, int)
    sinks = node.get("sinks")
    lse = bool(node.attr("lse"))
    spec = BlockAttentionSpec(
        heads, kv_heads, size, value_size, ctx.options.page_tokens, node.float_attr("scale"),
        node.float_attr("softcap"), sinks is not None, lists, _tokens(node, "sink"), _tokens(node, "window"),
        bool(node.attr("decode")), lse, ctx.kv,
    )  # fmt: skip
    inputs: list[Arg] = [node["q"], *map(CacheSlot, CACHE), node["idx"], node["cnt"]]
    if sinks is not None:
        inputs.append(ctx.pool.vector([(ctx.const(sinks, node, "sinks"), None)], sinks.name))
    ctx.add(spec, inputs, flat_result(ctx, node), [node], scalars=[node.int_attr("layer")])


def cover_gather_attention(ctx: Context, node: Node) -> None:
    """Plan the launch of a ``gather_attention``; its queries and its layer's append are planned."""
    check_pages(ctx, node)
    heads, size, kv_heads, value_size = geometry(ctx, node)
    lists = node["ids"].tensor.shape[1]
    assert isinstance(lists, int)
    spec = GatherAttentionSpec(
        heads, kv_heads, size, value_size, ctx.options.page_tokens, node.float_attr("scale"),
        node.float_attr("softcap"), lists, bool(node.attr("decode")), ctx.kv, node.int_attr("distance"),
        node.str_attr("layout"),
    )  # fmt: skip
    inputs: list[Arg] = [node["q"], *map(CacheSlot, CACHE), node["ids"], node["cnt"]]
    freq = node.get("inv_freq")
    if freq is not None:
        inputs.append(ctx.pool.vector([(ctx.const(freq, node, "inv_freq"), None)], freq.name))
    ctx.add(spec, inputs, flat_result(ctx, node), [node], scalars=[node.int_attr("layer")])


def cover_merge_attention(ctx: Context, node: Node) -> None:
    """Plan the launch of a ``merge_attention``."""
    _, heads, size = node.out.tensor.shape
    assert isinstance(heads, int) and isinstance(size, int)
    ctx.add(
        MergeAttentionSpec(heads, size, bool(node.attr("lse"))), list(node.operands), flat_result(ctx, node), [node]
    )


def flat_result(ctx: Context, node: Node) -> list[Value]:
    """What a kernel makes for a node with results [T, H, Ev] and perhaps more: the first as [T, H * Ev]."""
    out, *rest = node.results
    tokens, heads, size = out.tensor.shape
    flat = ctx.temporary(out.name, "f32", (tokens, heads * size))
    ctx.aliases[out] = flat
    return [flat, *rest]


def check_pages(ctx: Context, node: Node) -> None:
    """Refuse pages that are not the blocks that lists are of."""
    if ctx.options.page_tokens != BLOCK:
        what = f"{node.op} lists blocks of {BLOCK} tokens, which must be pages of the cache; a page has"
        raise refusal(ctx.graph, node, f"{what} {ctx.options.page_tokens}")


def geometry(ctx: Context, node: Node) -> tuple[int, int, int, int]:
    """H, E, Hkv and Ev of a node that reads the cache with queries [T, H, E]."""
    append = next((n for n in ctx.graph.nodes if n.op == "kv_append" and n.attr("layer") == node.attr("layer")), None)
    if append is None:
        raise refusal(ctx.graph, node, f"layer {node.attr('layer')} reads a cache that nobody fills", attr="layer")
    _, heads, size = node["q"].tensor.shape
    _, kv_heads, value_size = append["v"].tensor.shape
    sizes = [x for x in (heads, size, kv_heads, value_size) if isinstance(x, int)]
    assert len(sizes) == 4
    return sizes[0], sizes[1], sizes[2], sizes[3]


def _tokens(node: Node, name: str) -> tuple[int, ...]:
    value = node.attr(name)
    assert isinstance(value, tuple)
    return tuple(n for n in value if isinstance(n, int))
