"""Graphs as networkx graphs, for dominance, cuts, components and drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx

from fretsaw.ir.node import Graph, Node, Value
from fretsaw.ir.op import get_op

if TYPE_CHECKING:
    DataFlow = nx.DiGraph[int]
else:
    DataFlow = nx.DiGraph


def data_flow(graph: Graph) -> DataFlow:
    """Nodes by their position in ``graph.nodes``; an edge i -> j where node j reads a result of node i, or where
    both have effects on one handle and i comes first (their order is part of the program).

    Each position has the attribute ``node``; each edge of data has ``value``, the name that is read.
    """
    view = DataFlow()
    made: dict[Value, int] = {}
    touched: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        view.add_node(i, node=node)
        for value in node.operands:
            if value in made:
                view.add_edge(made[value], i, value=value.name)
        for handle in _effects(node):
            if handle in touched and not view.has_edge(touched[handle], i):
                view.add_edge(touched[handle], i, value=handle.name)
            touched[handle] = i
        made.update((value, i) for value in node.results)
    return view


def _effects(node: Node) -> list[Value]:
    names = get_op(node.op).slot_names(len(node.operands))
    return [v for slot, v in zip(names, node.operands, strict=True) if slot in get_op(node.op).effects]


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
