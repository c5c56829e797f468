"""Compute once what layers, or the methods of one layer, have in common.

    %a = span_blocks(%kv) {..}    ...    %b = span_blocks(%kv) {..}     ==>     %a = span_blocks(%kv) {..}
    compact_blocks(%a)            ...    compact_blocks(%b)                     compact_blocks(%a)

Why:    masks without scores depend on the lengths of a step alone, so one list serves every layer; heads of one layer
        with different thresholds have the same scores.
Needs:  the same op, operands and attributes. Ops that read keys name their layer among these and stand after its one
        kv_append; lengths do not change within a step.
Keeps:  bits.
"""

from __future__ import annotations

from dataclasses import replace

from fretsaw.ir import Graph, Node, Value

# Ops on the cache that read lengths and no keys, and ops that read their operands alone.
OF_LENGTHS = frozenset({"causal_blocks", "forced_blocks", "span_blocks", "strided_blocks", "elastic_blocks",
                        "prompt_blocks", "earlier_blocks", "sampled_blocks"})  # fmt: skip
OF_OPERANDS = frozenset({"union_blocks", "pick_heads", "compact_blocks", "softmax_blocks", "pool_heads"})
# Ops on the keys of the layer that an attribute names, and on scores.
OF_KEYS = frozenset({"pool_queries", "pool_keys", "block_scores", "band_scores", "bound_scores", "antidiagonal_scores",
                     "compressed_scores", "line_scores", "line_block_scores", "representative_keys", "chunk_keys",
                     "select_top_k", "select_share", "select_top_p", "select_above", "line_blocks", "flex_blocks",
                     "halving_blocks"})  # fmt: skip
SHARED = OF_LENGTHS | OF_OPERANDS | OF_KEYS


def share_masks(graph: Graph) -> Graph:
    """The graph with equal scores, masks and lists computed once; the same object where there are none."""
    first: dict[tuple[object, ...], Node] = {}
    same: dict[Value, Value] = {}
    nodes: list[Node] = []
    for old in graph.nodes:
        node = old
        if any(v in same for v in old.operands):
            node = replace(old, operands=tuple(same.get(v, v) for v in old.operands))
        if node.op in SHARED:
            kept = first.setdefault((node.op, node.operands, node.attrs), node)
            if kept is not node:
                same.update(zip(node.results, kept.results, strict=True))
                continue
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes)) if same else graph
