"""Compute equal things once.

    %a = op(%x) {..}
    %b = op(%x) {..}                  ==>     %a = op(%x) {..}, readers of %b read %a

Why:    every layer of a captured model widens the same cos and sin anew.
Needs:  same op, operands and attributes; no effects.
Keeps:  bits.
Stops:  one walk in order finds all of them; a second finds none.
Source: common practice (value numbering).
"""

from __future__ import annotations

from dataclasses import replace

from fretsaw.ir import Const, Graph, Node, Value, get_op
from fretsaw.passes.api import Outcome, graph_pass
from fretsaw.passes.kit.liveness import prune


@graph_pass(phase="canonical", keeps="bits")
def cse(graph: Graph) -> Outcome:
    """Merge equal constants and equal nodes; a graph output is never merged away."""
    first: dict[Value, Value] = {}
    seen_consts: dict[Const, Value] = {}
    for value, const in graph.consts.items():
        first[value] = seen_consts.setdefault(const, value)
    seen: dict[tuple[object, ...], Node] = {}
    nodes: list[Node] = []
    hits: list[Node] = []
    for node in graph.nodes:
        operands = tuple(first.get(v, v) for v in node.operands)
        current = node if operands == node.operands else replace(node, operands=operands)
        same = None if get_op(node.op).effects else seen.setdefault((node.op, operands, node.attrs), current)
        if same is None or same is current or any(v in graph.output_set for v in node.results):
            nodes.append(current)
            continue
        first.update(zip(node.results, same.results, strict=True))
        hits.append(node)
    if not hits and all(a is b for a, b in first.items()):
        return Outcome(graph)
    return Outcome(prune(replace(graph, nodes=tuple(nodes))), tuple(hits))
