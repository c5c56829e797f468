"""One attention layer: where q, k and v come from, their norms and rotary embedding, the cache.

qkv = gemm(x, packed rows of q, k, v)           features gathered in the order q | k | v, whatever the checkpoint did
q   = rope_append(qkv, gains, cos, sin, cache)  norms, rotation, keys and values written to the cache
o   = attention(q, cache)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fretsaw.backends.program.plan.refuse import refusal
from fretsaw.backends.program.plan.rows import Rows, feeds_only, trace_rows
from fretsaw.ir import Graph, Node, Value

CACHED = ("cached_attention", "block_attention", "gather_attention")  # ops that queries read the cache with


@dataclass(frozen=True)
class Branch:
    """One of q, k, v before attention, nearest the projection first.

    Args:
        base: The value [T, H, E] before norm and rotation.
        norm: The per-head RMSNorm, if any.
        rope: The rotation, if any.
        rows: The projection's features, when ``base`` is a rearranged linear.
    """

    base: Value
    norm: Node | None
    rope: Node | None
    rows: Rows | None

    @property
    def nodes(self) -> list[Node]:
        return [n for n in (self.norm, self.rope) if n is not None]


@dataclass(frozen=True)
class AttentionSite:
    """The nodes of one layer's attention; ``fused`` says whether one GEMM makes q, k and v."""

    append: Node
    attend: Node
    q: Branch
    k: Branch
    v: Branch

    @property
    def layer(self) -> int:
        return self.append.int_attr("layer")

    @property
    def linears(self) -> list[Node]:
        """Distinct linears behind q, k, v, in that order."""
        out: list[Node] = []
        for branch in (self.q, self.k, self.v):
            if branch.rows is not None and all(branch.rows.linear is not n for n in out):
                out.append(branch.rows.linear)
        return out

    def is_fused(self, graph: Graph) -> bool:
        """All three are rearrangements of linears of one input that nobody else reads."""
        branches = (self.q, self.k, self.v)
        if any(b.rows is None for b in branches):
            return False
        linears = self.linears
        if any(n["input"] != linears[0]["input"] for n in linears):
            return False
        inside = {id(n) for b in branches if b.rows is not None for n in (*b.rows.path, *b.nodes)}
        inside |= {id(self.append), id(self.attend)}
        return all(feeds_only(graph, n, inside) for n in linears)

    def head_order(self) -> list[tuple[Node, np.ndarray]]:
        """(linear, output rows) in the order q | k | v."""
        parts = [b.rows for b in (self.q, self.k, self.v)]
        return [(r.linear, r.rows.reshape(-1)) for r in parts if r is not None]


def branch_of(graph: Graph, value: Value, shared: bool = False) -> Branch:
    """Trace q, k or v of an attention back to its projection. Others may read the value itself if it is ``shared``."""
    norm = rope = None
    node = graph.producer(value)
    if node is not None and node.op == "rope" and (shared or graph.sole_use(value)):
        rope, value = node, node["x"]
        node = graph.producer(value)
    if node is not None and node.op == "rms_norm" and graph.sole_use(value):
        norm, value = node, node["x"]
    return Branch(value, norm, rope, trace_rows(graph, value))


def attention_sites(graph: Graph) -> list[AttentionSite]:
    """Every layer's site, in order: where queries meet the cache first, whatever else reads both.

    Raises:
        LoweringError: an append without its attention, or q and k rotated differently.
    """
    appends = {n.int_attr("layer"): n for n in graph.nodes if n.op == "kv_append"}
    sites: list[AttentionSite] = []
    for node in graph.nodes:
        if node.op not in CACHED or any(s.layer == node.attr("layer") for s in sites):
            continue
        append = appends.get(node.int_attr("layer"))
        if append is None:
            raise refusal(graph, node, f"layer {node.attr('layer')} reads a cache that nobody fills", attr="layer")
        k, v = (branch_of(graph, append[slot]) for slot in "kv")
        # The append's kernel writes q [T, H, E] to memory: selectors of sparse attention may read it too.
        site = AttentionSite(append, node, branch_of(graph, node["q"], shared=True), k, v)
        check_rope(graph, site)
        sites.append(site)
    return sites


def check_rope(graph: Graph, site: AttentionSite) -> None:
    """Refuse a layer whose q and k are rotated differently."""
    a, b = site.q.rope, site.k.rope
    if (a is None) != (b is None) or site.v.rope is not None or site.v.norm is not None:
        what = "the tvm backend rotates q and k alike and leaves v alone; this layer does otherwise"
        raise refusal(graph, site.attend, what)
    if a is None or b is None:
        return
    same = a.attrs == b.attrs and a["positions"] == b["positions"]
    f, g = graph.consts.get(a["inv_freq"]), graph.consts.get(b["inv_freq"])
    if not same or f is None or f != g:
        raise refusal(graph, site.attend, "q and k of one layer use different rotary embeddings")
