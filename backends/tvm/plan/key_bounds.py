"""Cover bounds of pages for rows that decode: from least and greatest keys that are kept beside the pages.

    %lo = pool_keys(%kv) {kind = "min"}
    %hi = pool_keys(%kv) {kind = "max"}                      keep_bounds: pages that this step appends to
    %s = bound_scores(%kv, %q, %lo, %hi) {single}    ==>     %s = stored_bound_scores(%q)

Why: what a full page holds does not change any more, and to read all keys in every step costs as much as it saves.
"""

from __future__ import annotations

from fretsaw.backends.tvm.plan.context import Context
from fretsaw.backends.tvm.plan.sparse_attention import check_pages
from fretsaw.backends.tvm.specs_key_bounds import KeepBoundsSpec, StoredBoundsSpec
from fretsaw.backends.tvm.steps import CacheSlot
from fretsaw.ir import Graph, Node

SLOT = "key_bounds"


def cover_key_bounds(ctx: Context) -> None:
    """Plan the launches of all such scores of a graph: bounds are brought up to date once a layer."""
    kept: set[int] = set()
    for node in ctx.graph.nodes:
        pools = _pools(ctx.graph, node)
        if not pools:
            continue
        check_pages(ctx, node)
        layer = pools[0].int_attr("layer")
        heads, size, kv_heads = (
            int(n) for n in (*node["q"].tensor.shape[1:], pools[0].int_attr("kv_heads")) if isinstance(n, int)
        )
        if layer not in kept:
            kept.add(layer)
            inputs = [CacheSlot(name) for name in ("k_pages", "table", "lens", "cu", SLOT)]
            spec = KeepBoundsSpec(kv_heads, size, ctx.kv)
            ctx.add(spec, inputs, [], pools, at=node, scalars=[layer], writes=[SLOT])
        scores = StoredBoundsSpec(heads, kv_heads, size, node.float_attr("scale"))
        cache = [CacheSlot(name) for name in ("table", "lens", "cu", SLOT)]
        ctx.add(scores, [*cache, node["q"]], [node.out], [node, *pools], at=node, scalars=[layer])


def _pools(graph: Graph, node: Node) -> tuple[Node, ...]:
    """The least and the greatest keys of ``node``, if these can be kept for it and nobody reads them otherwise."""
    if not _fits(graph, node):
        return ()
    pools = tuple(p for p in (graph.producer(node["lo"]), graph.producer(node["hi"])) if p is not None)
    return pools if all(_fits(graph, use.node) for p in pools for use in graph.uses(p.out)) else ()


def _fits(graph: Graph, node: Node) -> bool:
    if node.op != "bound_scores" or not node.attr("single"):
        return False
    low, high = graph.producer(node["lo"]), graph.producer(node["hi"])
    if low is None or high is None or (low.op, high.op) != ("pool_keys", "pool_keys"):
        return False
    kinds = (low.attr("kind"), high.attr("kind"))
    return kinds == ("min", "max") and low.attr("layer") == high.attr("layer") and low["kv"] == node["kv"]
