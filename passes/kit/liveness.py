"""Which nodes matter: those that an output or an effect needs."""

from __future__ import annotations

from dataclasses import replace

from fretsaw.ir import Graph, Node, Value, get_op


def live_nodes(graph: Graph) -> list[Node]:
    """Nodes with effects, and nodes that outputs or live nodes read, in order."""
    wanted: set[Value] = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if get_op(node.op).writes or any(v in wanted for v in node.results):
            kept.append(node)
            wanted.update(node.operands)
    return kept[::-1]


def prune(graph: Graph) -> Graph:
    """``graph`` without dead nodes and unread constants; the same object when there are none. Inputs stay."""
    nodes = live_nodes(graph)
    read = {v for node in nodes for v in node.operands} | set(graph.outputs)
    consts = {v: c for v, c in graph.consts.items() if v in read}
    if len(nodes) == len(graph.nodes) and len(consts) == len(graph.consts):
        return graph
    return replace(graph, nodes=tuple(nodes), consts=consts)
