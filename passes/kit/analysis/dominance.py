"""Dominance in the data flow: which nodes everything that reaches a node has to pass.

Nodes are positions in ``graph.nodes``. ``a`` dominates ``b`` when every path from inputs and constants to ``b`` goes
through ``a``; ``b`` post-dominates ``a`` when every path from ``a`` to an output or a write goes through ``b``. The
order that nodes have to keep on a handle counts as flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx

from fretsaw.ir import Graph, get_op
from fretsaw.ir.views import data_flow
from fretsaw.passes.kit.analysis.once import analysis

START, END = -1, -2  # what feeds every node without operands from nodes, and what reads outputs and effects


@dataclass(frozen=True)
class Dominance:
    """Trees of immediate dominators and post-dominators.

    Args:
        above: Immediate dominator by position; ``START`` where only the start dominates.
        below: Immediate post-dominator by position; ``END`` where there is no node. Dead nodes are absent.
    """

    above: Mapping[int, int]
    below: Mapping[int, int]

    def dominates(self, a: int, b: int) -> bool:
        """Every path to node ``b`` goes through node ``a`` (a node dominates itself)."""
        return _reaches(self.above, b, a)

    def post_dominates(self, b: int, a: int) -> bool:
        """Every path from node ``a`` to an output or effect goes through node ``b`` (``a`` itself included)."""
        return _reaches(self.below, a, b)

    def region(self, root: int) -> frozenset[int]:
        """Nodes that serve ``root`` alone: it post-dominates them. Itself included."""
        found = {root}
        for i in sorted(self.below, reverse=True):  # an immediate post-dominator comes later in the program
            if self.below[i] in found:
                found.add(i)
        return frozenset(found)


def _reaches(tree: Mapping[int, int], at: int, wanted: int) -> bool:
    while at >= 0 and at != wanted:
        at = tree.get(at, START)
    return at == wanted


@analysis
def dominance(graph: Graph) -> Dominance:
    """Dominators and post-dominators of ``graph``."""
    view = data_flow(graph)
    count = len(graph.nodes)
    fed = {v for node in graph.nodes for v in node.results}
    made = {v: i for i, node in enumerate(graph.nodes) for v in node.results}
    view.add_node(START)
    view.add_node(END)
    for i, node in enumerate(graph.nodes):  # a node that reads an input or a constant has a path around its producers
        if not node.operands or any(v not in fed for v in node.operands):
            view.add_edge(START, i)
        if get_op(node.op).writes:
            view.add_edge(i, END)
    for value in graph.outputs:
        if value in made:
            view.add_edge(made[value], END)
    above = nx.immediate_dominators(view, START)
    below = nx.immediate_dominators(view.reverse(copy=False), END)
    return Dominance(
        {i: above[i] for i in range(count) if i in above}, {i: below[i] for i in range(count) if i in below}
    )
