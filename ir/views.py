"""Graphs as networkx graphs, for dominance, cuts, components and drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx

from fretsaw.ir.effects import kept_order
from fretsaw.ir.node import Graph, Value

if TYPE_CHECKING:
    DataFlow = nx.DiGraph[int]
else:
    DataFlow = nx.DiGraph


def data_flow(graph: Graph) -> DataFlow:
    """Nodes by their position in ``graph.nodes``; an edge i -> j where node j reads a result of node i, or where
    they have to keep their order on a handle: one of them writes what the other reads or writes.

    Each position has the attribute ``node``; each edge of data has ``value``, the name that is read.
    """
    view = DataFlow()
    made: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        view.add_node(i, node=node)
        for value in node.operands:
            if value in made:
                view.add_edge(made[value], i, value=value.name)
        made.update((value, i) for value in node.results)
    for i, j, state in kept_order(graph):
        if not view.has_edge(i, j):
            view.add_edge(i, j, value=state.handle.name)
    return view


def is_convex(view: DataFlow, region: set[int]) -> bool:
    """No path leaves ``region`` and comes back: it can be replaced by one node."""
    reached: set[int] = set()
    todo = [j for i in region for j in view.successors(i) if j not in region]
    while todo:
        i = todo.pop()
        if i in region:
            return False
        if i not in reached:
            reached.add(i)
            todo += view.successors(i)
    return True
