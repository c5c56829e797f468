"""What took the place of what: removed and added nodes that belong together, as connected components.

A removed and an added node of one layer belong together when they read the same value, feed the same node, or hold the
same constant; two on one side when one reads the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import networkx as nx

from fretsaw.ir import Graph, Node, OpData, Value, get_op
from fretsaw.ir.printer import const_text
from fretsaw.tools.diff.match import Matching
from fretsaw.tools.report.layers import layer_of

if TYPE_CHECKING:
    Links = nx.Graph[tuple[str, int]]
else:
    Links = nx.Graph

MOST_NAMES = 4  # module names of one op before only their number is given


@dataclass(frozen=True)
class Replaced:
    """One component: ``place`` is the module path that all of it lies under, below the layer."""

    removed: tuple[Node, ...]
    added: tuple[Node, ...]
    place: str
    text: str

    @property
    def kind(self) -> str:
        return "replaced" if self.removed and self.added else "removed" if self.removed else "added"


def replaced(m: Matching) -> Iterator[Replaced]:
    """Components of what no pair holds, in program order of their first node."""
    links = Links()
    for side, nodes in (("-", m.removed), ("+", m.added)):
        links.add_nodes_from((side, i) for i in range(len(nodes)))
        made = {v: i for i, n in enumerate(nodes) for v in n.results}
        for i, node in enumerate(nodes):
            reads = (made[v] for v in node.operands if v in made)
            links.add_edges_from(((side, j), (side, i)) for j in reads if _layer(nodes[j]) == _layer(node))
    new_of = {id(old): new for old, new in m.pairs}
    anchors: dict[Hashable, list[tuple[str, int]]] = defaultdict(list)
    for i, node in enumerate(m.removed):
        for anchor in _anchors(m.before, node, m.partner, new_of):
            anchors[_layer(node), anchor].append(("-", i))
    for i, node in enumerate(m.added):
        for anchor in _anchors(m.after, node, None, None):
            anchors[_layer(node), anchor].append(("+", i))
    for found in anchors.values():
        if len({side for side, _ in found}) == 2:
            links.add_edges_from((found[0], other) for other in found[1:])
    for component in sorted(nx.connected_components(links), key=min):
        old = tuple(m.removed[i] for side, i in sorted(component) if side == "-")
        new = tuple(m.added[i] for side, i in sorted(component) if side == "+")
        yield Replaced(old, new, _place([*old, *new]), _text(m, old, new))


def _layer(node: Node) -> Hashable:
    return layer_of(node.loc.module) or node.loc.module


def _anchors(
    graph: Graph, node: Node, partner: Mapping[Value, Value] | None, new_of: Mapping[int, Node] | None
) -> Iterator[Hashable]:
    """What a removed and an added node can have in common, in terms of the graph after."""
    for value in node.operands:
        if value in graph.consts:
            yield from (("const", text) for text in _leaves(graph, value))
        elif graph.producer(value) is not None:
            other = value if partner is None else partner.get(value)
            if other is not None:
                yield "reads", other
    for value in node.results:
        for use in graph.uses(value):
            reader = use.node if new_of is None else new_of.get(id(use.node))
            if reader is not None:
                yield "feeds", id(reader), use.index


def _leaves(graph: Graph, value: Value) -> Iterator[str]:
    todo = [graph.consts[value]]
    while todo:
        const = todo.pop()
        if isinstance(const.data, OpData):
            todo += const.data.operands
        elif (const.type.numel if isinstance(const.type.numel, int) else 0) > 1:  # scalars are everywhere
            yield const_text(const)


def _place(nodes: Sequence[Node]) -> str:
    """The module path that all nodes share, below the layer."""
    paths = [_below(n.loc.module).split(".") for n in nodes]
    shared: list[str] = []
    for column in zip(*paths, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return ".".join(shared)


def _below(module: str) -> str:
    layer = layer_of(module)
    return module if layer is None else module.removeprefix(f"{layer[0]}.{layer[1]}").removeprefix(".")


def _text(m: Matching, old: Sequence[Node], new: Sequence[Node]) -> str:
    if not (old and new):
        return f"{'removed' if old else 'added'} {_describe(m.before if old else m.after, old or new)}"
    note = ""
    left, right = (_telling(nodes) for nodes in (old, new))
    ops = {n.op for n in [*left, *right]}
    if len(ops) == 1 and not any(map(_moves, ops)) and len(left) != len(right) and 1 in (len(left), len(right)):
        note = " (merged)" if len(right) == 1 else " (split)"
    return f"{_describe(m.before, old)} -> {_describe(m.after, new)}{note}"


def _telling(nodes: Sequence[Node]) -> list[Node]:
    return [n for n in nodes if not _moves(n.op)] or list(nodes)


def _moves(op: str) -> bool:
    """It moves data, which is told only when alone."""
    return get_op(op).kind == "layout"


def _describe(graph: Graph, nodes: Sequence[Node]) -> str:
    """``linear gate_proj + up_proj, silu``: ops in program order with the modules whose weights they hold."""
    by_op: dict[str, list[str]] = defaultdict(list)
    for node in _telling(nodes):
        by_op[node.op].append(_role(graph, node))
    parts = []
    for op, roles in by_op.items():
        named = [r for r in roles if r]
        if len(named) == len(roles) <= MOST_NAMES:
            parts.append(f"{op} {' + '.join(named)}")
        else:
            parts.append(op if len(roles) == 1 else f"{len(roles)} {op}")
    return ", ".join(parts)


def _role(graph: Graph, node: Node) -> str:
    """The module whose weight a node holds: the part of the constant's name before ``.weight``."""
    for value in node.operands:
        path = value.name.split(".")
        if value in graph.consts and len(path) > 1 and path[-1] in ("weight", "bias"):
            return path[-2]
    return ""
