"""Cover one layer's attention: the merged projection, the append, the attention itself."""

from __future__ import annotations

from fretsaw.backends.tvm.plan.attention import AttentionSite, Branch
from fretsaw.backends.tvm.plan.context import Context
from fretsaw.backends.tvm.plan.refuse import refusal
from fretsaw.backends.tvm.plan.sparse_attention import cover_block_attention, cover_gather_attention
from fretsaw.backends.tvm.specs import AnglesSpec, AppendSpec, AttentionSpec, LinearSpec
from fretsaw.backends.tvm.steps import Arg, CacheSlot
from fretsaw.ir import Node, Value

PAGES = ("table", "lens", "cu", "k_pages", "v_pages")


def cover_attention(ctx: Context, site: AttentionSite) -> None:
    """Plan the launches of one site."""
    heads, size, kv_heads, value_size = _geometry(site)
    angles, pairs, layout = angles_of(ctx, site)
    norms = [_gain(ctx, site, b) for b in (site.q, site.k)]
    fused = site.is_fused(ctx.graph)
    projected = [project(ctx, site)] if fused else [flat(ctx, b) for b in (site.q, site.k, site.v)]
    eps = {b.norm.float_attr("eps") for b in (site.q, site.k) if b.norm is not None}
    if len(eps) > 1:
        raise refusal(ctx.graph, site.attend, "q and k norms of one layer differ in eps")
    spec = AppendSpec(
        heads, kv_heads, size, value_size, pairs, layout, ctx.options.page_tokens, norms[0] is not None,
        norms[1] is not None, eps.pop() if eps else 1e-6, separate=not fused, kv=ctx.kv,
    )  # fmt: skip
    q = site.q.rope.out if site.q.rope is not None else site.attend["q"]
    inputs: list[Arg] = [*projected, *angles, *(n for n in norms if n is not None), *map(CacheSlot, PAGES)]
    inner = [n for b in (site.q, site.k, site.v) for n in b.nodes]
    ctx.add(spec, inputs, [q], [*inner, site.append], at=site.append, scalars=[site.layer],
            writes=["k_pages", "v_pages"])  # fmt: skip
    _attend(ctx, site, q, (heads, kv_heads, size, value_size))


def _geometry(site: AttentionSite) -> tuple[int, int, int, int]:
    _, heads, size = site.attend["q"].tensor.shape
    _, kv_heads, value_size = site.append["v"].tensor.shape
    assert all(isinstance(x, int) for x in (heads, size, kv_heads, value_size))
    return int(heads), int(size), int(kv_heads), int(value_size)  # type: ignore[arg-type]


def project(ctx: Context, site: AttentionSite) -> Value:
    """One GEMM that gives q | k | v; its rows are gathered from the linears behind them."""
    order = site.head_order()
    linears = site.linears
    parts = [(ctx.const(n["weight"], n, "weight"), rows) for n, rows in order]
    width = sum(rows.size for _, rows in order)
    depth = linears[0]["weight"].tensor.shape[1]
    assert isinstance(depth, int)
    base = linears[0]["weight"].name + ".qkv"
    weight = ctx.pool.panels(parts, base)
    inputs: list[Arg] = [linears[0]["input"], weight]
    biases = [n.get("bias") for n in linears]
    with_bias = any(b is not None for b in biases)
    if with_bias:
        if any(b is None for b in biases):
            raise refusal(ctx.graph, site.attend, "some of q, k, v have a bias and some have none")
        vectors = [(ctx.const(n["bias"], n, "bias"), rows) for n, rows in order]
        inputs.append(ctx.pool.vector(vectors, base + ".bias"))
    out = ctx.temporary(base, "f32", (site.attend["q"].tensor.shape[0], width))
    tree = ("add", ("leaf", 0), ("leaf", 1)) if with_bias else ("leaf", 0)
    spec = LinearSpec(width, depth, weight.type.dtype, tree, ("col",) if with_bias else ())
    branches = (site.q, site.k, site.v)
    path = [n for b in branches if b.rows is not None for n in b.rows.path]
    ctx.add(spec, inputs, [out], [*linears, *path])
    return out


def flat(ctx: Context, branch: Branch) -> Value:
    """q, k or v before norm and rotation, as [T, H*E]."""
    tokens, heads, size = branch.base.tensor.shape
    flat = ctx.temporary(branch.base.name, "f32", (tokens, heads * size))
    ctx.aliases[flat] = branch.base
    return flat


def angles_of(ctx: Context, site: AttentionSite) -> tuple[list[Value], int, str]:
    """cos and sin of the step, computed once per (positions, frequencies)."""
    rope = site.q.rope
    if rope is None:
        what = "attention without rotary embedding has no kernel in the tvm backend"
        raise refusal(ctx.graph, site.attend, what, slot="q")
    freq = ctx.const(rope["inv_freq"], rope, "inv_freq")
    pairs = int(rope["inv_freq"].tensor.shape[0])  # type: ignore[arg-type]
    key = (rope["positions"], freq, rope.float_attr("scale"))
    if key not in ctx.angles:
        shape = (rope["positions"].tensor.shape[0], pairs)
        cos, sin = (ctx.temporary(f"angles.{name}", "f32", shape) for name in ("cos", "sin"))
        tensor = ctx.pool.vector([(freq, None)], rope["inv_freq"].name)
        spec = AnglesSpec(pairs, rope.float_attr("scale"))
        ctx.add(spec, [rope["positions"], tensor], [cos, sin], [], at=ctx.graph.nodes[0])
        ctx.angles[key] = (cos, sin)
    return list(ctx.angles[key]), pairs, rope.str_attr("layout")


def _gain(ctx: Context, site: AttentionSite, branch: Branch) -> Arg | None:
    if branch.norm is None:
        return None
    gain = branch.norm.get("gain")
    if gain is None:
        raise refusal(ctx.graph, branch.norm, "a per-head norm without gain has no kernel")
    return ctx.pool.vector([(ctx.const(gain, branch.norm, "gain"), None)], gain.name)


def _attend(ctx: Context, site: AttentionSite, q: Value, geometry: tuple[int, int, int, int]) -> None:
    node: Node = site.attend
    if node.op == "block_attention":
        cover_block_attention(ctx, node)
        return
    if node.op == "gather_attention":
        cover_gather_attention(ctx, node)
        return
    heads, kv_heads, size, value_size = geometry
    if not node.attr("causal"):
        raise refusal(ctx.graph, node, "bidirectional attention over a cache has no kernel", attr="causal")
    sinks = node.get("sinks")
    spec = AttentionSpec(
        heads, kv_heads, size, value_size, ctx.options.page_tokens, node.float_attr("scale"), node.int_attr("window"),
        node.float_attr("softcap"), sinks is not None, ctx.kv,
    )  # fmt: skip
    inputs: list[Arg] = [q, *(CacheSlot(name) for name in ("k_pages", "v_pages", "table", "lens", "cu"))]
    if sinks is not None:
        inputs.append(ctx.pool.vector([(ctx.const(sinks, node, "sinks"), None)], sinks.name))
    flat = ctx.temporary(node.out.name, "f32", (node.out.tensor.shape[0], heads * value_size))
    ctx.aliases[node.out] = flat
    ctx.add(spec, inputs, [flat], [node], scalars=[site.layer])
