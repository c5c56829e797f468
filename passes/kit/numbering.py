"""Value numbering: equal constants and equal nodes computed once.

Nodes are equal when op, operands, attributes and what they read of handles are: a write to a part of a handle makes
later reads of that part others than those before it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from fretsaw.ir import Const, Graph, Node, Value, get_op
from fretsaw.ir.effects import State, reads, writes


def merge_equal(graph: Graph) -> tuple[Graph, tuple[Node, ...]]:
    """``graph`` with every computation once, and the nodes that went; the same object where none did. A graph output is
    never merged away. Constants that nothing reads any more stay."""
    first: dict[Value, Value] = {}
    seen_consts: dict[Const, Value] = {}
    for value, const in graph.consts.items():
        first[value] = seen_consts.setdefault(const, value)
    seen: dict[tuple[object, ...], Node] = {}
    written: Counter[State] = Counter()
    nodes: list[Node] = []
    hits: list[Node] = []
    for node in graph.nodes:
        operands = tuple(first.get(v, v) for v in node.operands)
        current = node if operands == node.operands else replace(node, operands=operands)
        same = current
        if get_op(node.op).writes:
            written.update(writes(current))
        else:
            same = seen.setdefault((node.op, operands, node.attrs, _versions(current, written)), current)
        if same is current or any(v in graph.output_set for v in node.results):
            nodes.append(current)
            continue
        first.update(zip(node.results, same.results, strict=True))
        hits.append(node)
    if not hits and all(a is b for a, b in first.items()):
        return graph, ()
    return replace(graph, nodes=tuple(nodes)), tuple(hits)


def _versions(node: Node, written: Counter[State]) -> tuple[int, ...]:
    """How often each state that ``node`` reads has been written before it."""
    return tuple(sum(n for w, n in written.items() if w.overlaps(state)) for state in reads(node))
