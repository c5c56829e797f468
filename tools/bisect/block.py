"""The smallest piece of two graphs that holds their difference: same inputs, same outputs, other nodes between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np

from fretsaw.ir import Const, Graph, Node, Value, evaluate_graph, run
from fretsaw.ir.consts import ArrayData
from fretsaw.ir.types import HandleType
from fretsaw.ir.views import data_flow


@dataclass(frozen=True)
class Block:
    """Two small graphs with one interface, and real values for their inputs.

    Args:
        inputs: Arrays by name; handles are left out.
    """

    before: Graph
    after: Graph
    inputs: Mapping[str, np.ndarray]

    def errors(self) -> Mapping[str, float]:
        """Largest absolute difference of each output over its largest magnitude; empty where a handle is read."""
        if any(isinstance(v.type, HandleType) for v in self.before.inputs):
            return {}
        pairs = zip(run(self.before, self.inputs), run(self.after, self.inputs), strict=True)
        names = [v.name for v in self.before.outputs]
        return {n: _error(a, b) for n, (a, b) in zip(names, pairs, strict=True)}


def _error(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return float("inf")
    wide = [x.astype(np.float64) for x in (a, b)]
    return float(np.abs(wide[0] - wide[1]).max() / max(np.abs(wide[0]).max(), 1e-300))


def minimal_block(before: Graph, after: Graph, feeds: Mapping[str, object]) -> Block:
    """The nodes in which two graphs differ, with what lies between them, cut out of both.

    Args:
        feeds: Inputs of ``before``; the inputs of the block are computed from them.
    """
    regions = _region(before, after), _region(after, before)
    outputs = [_outputs(g, r) for g, r in zip((before, after), regions, strict=True)]
    names = [n for n in outputs[0] if n in outputs[1]]
    if not names or set(outputs[0]) ^ set(outputs[1]):  # no common edge: the whole graphs are the block
        regions = set(range(len(before.nodes))), set(range(len(after.nodes)))
        names = [v.name for v in before.outputs]
    needed = {v.name: v for g, r in zip((before, after), regions, strict=True) for v in _inputs(g, r)}
    inputs = tuple(v for v in before.values() if v.name in needed)
    small = [_cut(g, r, inputs, names) for g, r in zip((before, after), regions, strict=True)]
    tensors = [v for v in inputs if not isinstance(v.type, HandleType)]
    values = evaluate_graph(before, feeds, keep=tensors) if tensors else {}
    return Block(small[0], small[1], {v.name: values[v] for v in tensors})


def _region(graph: Graph, other: Graph) -> set[int]:
    """Positions of the nodes that ``other`` has not, closed under paths between them."""
    theirs = set(other.nodes)
    consts = {v for v, c in graph.consts.items() if v in other.consts and other.consts[v] != c}
    own = {i for i, n in enumerate(graph.nodes) if n not in theirs or any(v in consts for v in n.operands)}
    flow = data_flow(graph)
    below = {j for i in own for j in nx.descendants(flow, i)}
    above = {j for i in own for j in nx.ancestors(flow, i)}
    return own | (below & above)


def _outputs(graph: Graph, region: set[int]) -> list[str]:
    """Names of results that are read outside of the region."""
    inside = {id(graph.nodes[i]) for i in region}
    found = []
    for i in sorted(region):
        for value in graph.nodes[i].results:
            if value in graph.output_set or any(id(u.node) not in inside for u in graph.uses(value)):
                found.append(value.name)
    return found


def _inputs(graph: Graph, region: set[int]) -> list[Value]:
    made = {v for i in region for v in graph.nodes[i].results}
    read = [v for i in sorted(region) for v in graph.nodes[i].operands]
    return [v for v in dict.fromkeys(read) if v not in made and v not in graph.consts]


def _cut(graph: Graph, region: set[int], inputs: tuple[Value, ...], names: list[str]) -> Graph:
    nodes: tuple[Node, ...] = tuple(graph.nodes[i] for i in sorted(region))
    known = {v.name: v for v in [*inputs, *(v for n in nodes for v in n.results)]}
    read = {v for n in nodes for v in n.operands}
    consts = {v: _loaded(c) for v, c in graph.consts.items() if v in read}
    outputs = tuple(known[n] for n in names)
    return replace(graph, name="block", inputs=inputs, consts=consts, nodes=nodes, outputs=outputs)


def _loaded(const: Const) -> Const:
    """The same constant with its data in memory, so that text and arrays can be stored together."""
    return Const(const.type, ArrayData(np.ascontiguousarray(const.load())))
