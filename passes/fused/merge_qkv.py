"""Project queries, keys and values of one attention with one matrix.

    %q = linear(%x, Wq)                          %p = linear(%x, [Wq; Wk; Wv])
    %k = linear(%x, Wk)                 ==>      %q = slice(%p), %k = slice(%p), %v = slice(%p)
    %v = linear(%x, Wv)

Why:    one product reads %x once and keeps the machine busy where Wk and Wv alone are too narrow.
Needs:  three linears of one value with constant weights that nothing else reads; norms, ropes and reshapes may lie
        between them and the attention. A missing bias becomes zeros where another has one.
Keeps:  algebra (the products are the same; how a kernel splits them may differ).
Stops:  each edit leaves two linears fewer.
Source: common practice (Megatron-LM, arXiv:1909.08053).
"""

from __future__ import annotations

from collections.abc import Sequence

from fretsaw.ir import Graph, Node, Value
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.fused.merge_linears import merge

BETWEEN = ("reshape", "transpose", "rms_norm", "layer_norm", "rope", "slice")


@rule(root="attention", phase="fused", keeps="algebra", clears=lambda g: separate_projections(g))
def merge_qkv(root: Node, g: Graph) -> Edit | Decline | None:
    """One projection for the attention ``root``."""
    sources = [_projection(g, root[slot]) for slot in ("q", "k", "v")]
    for source in sources:
        if source is None or source.op != "linear":
            return Decline("queries, keys or values do not come from a projection", at=source or root)
    linears = [s for s in sources if s is not None]
    names = {n.out for n in linears}
    if len(names) == 1:
        return Decline("one projection makes all three", at=linears[0], already=True)
    if len(names) == 2:
        return Decline("two of the three come from one projection", at=linears[1])
    return merge(g, linears, "qkv_proj")


def _projection(g: Graph, value: Value) -> Node | None:
    """The first node above ``value`` that is more than layout, norm or rotation."""
    node = g.producer(value)
    while node is not None and node.op in BETWEEN:
        node = g.producer(node.operands[0])
    return node


def separate_projections(graph: Graph) -> Sequence[Node]:
    """Attentions with three projections of one value."""
    out = []
    for node in graph.nodes:
        if node.op == "attention":
            found = [_projection(graph, node[slot]) for slot in ("q", "k", "v")]
            linears = {n.out: n for n in found if n is not None and n.op == "linear"}
            if len(linears) == 3 and len({n["input"] for n in linears.values()}) == 1:
                out.append(node)
    return out
