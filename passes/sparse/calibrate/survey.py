"""What every candidate would do to every head, from one run of the dense model.

    dense graph    ... kv_append -> [cached_attention] -> ...       its q, k, v are what candidates are tried on
    candidate      selector ops of its own in front of that node    run on the side, for their lists alone

A candidate is one method with its options. Its selector ops are those that the pass would insert, found by running the
pass on the graph and looking at what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fretsaw.ir import Const, Graph, Node, Value
from fretsaw.ir.interp import bind_dims, run_node
from fretsaw.passes.evidence.feeds import Sequence as Text
from fretsaw.passes.evidence.feeds import feed
from fretsaw.passes.evidence.watched import run_watched
from fretsaw.passes.kit.cost import node_flops
from fretsaw.passes.kit.inspector import Look
from fretsaw.passes.sparse.calibrate.layer import Layer, Reads
from fretsaw.passes.sparse.calibrate.measure import Loss, measure
from fretsaw.passes.sparse.calibrate.report import Lists, read_lists, token_lists
from fretsaw.passes.sparse.options import Sparse
from fretsaw.passes.sparse.place import put_lists

Array = np.ndarray
Note = Callable[[str], None]
Key = tuple[object, ...]  # of a value: a name and a constant, or the number of the run that made it and which result


class Known:
    """Results of ops that ran on a layer: candidates that differ in a threshold share their scores."""

    def __init__(self) -> None:
        self._runs: dict[Key, tuple[int, list[Array]]] = {}

    def run(
        self, node: Node, operands: tuple[Key, ...], get: Callable[[Value], object], env: Mapping[str, int]
    ) -> tuple[int, list[Array]]:
        """The number of the run of an equal op on equal values, and its results."""
        key: Key = (node.op, node.attrs, operands)
        if key not in self._runs:
            self._runs[key] = (len(self._runs), run_node(node, [get(v) for v in node.operands], env))
        return self._runs[key]


@dataclass(frozen=True, eq=False)
class Selector:
    """The ops of one candidate in front of one attention.

    Args:
        nodes: In order; the attention over lists is the last.
        reads: Values of the dense graph that they read.
        tokens: Lists of single keys that are read beside blocks.
    """

    nodes: tuple[Node, ...]
    reads: tuple[Value, ...]
    consts: Mapping[Value, Const]
    tokens: Lists | None = None

    @property
    def attention(self) -> Node:
        return self.nodes[-1]

    def run(self, look: Look, env: Mapping[str, int], heads: int, known: Known) -> Reads:
        """What the heads of its layer read.

        Args:
            known: Of this and of other candidates of the layer.
        """
        keys: dict[Value, Key] = {}
        live: dict[Value, object] = {}

        def get(value: Value) -> object:
            if value in live:
                return live[value]
            return self.consts[value].load() if value in self.consts else look(value)

        def key(value: Value) -> Key:
            return keys[value] if value in keys else (value.name, id(self.consts.get(value)))

        for node in self.nodes[:-1]:
            number, results = known.run(node, tuple(map(key, node.operands)), get, env)
            for i, (value, array) in enumerate(zip(node.results, results, strict=True)):
                keys[value], live[value] = (number, i), array
        return read_lists(self.attention, get, heads, self.tokens)

    def flops(self, env: Mapping[str, int]) -> int:
        """Operations of choosing."""
        return sum(node_flops(node, env) for node in self.nodes[:-1])


def selectors(graph: Graph, options: Sparse) -> dict[int, Selector]:
    """The selector ops of a candidate by layer; layers that its method leaves dense are not there."""
    outcome = put_lists(graph, options)
    known = {v for node in graph.nodes for v in node.results} | set(graph.inputs) | set(graph.consts)
    made = {v: node for node in outcome.graph.nodes for v in node.results if v not in known}
    place = {node.out: i for i, node in enumerate(outcome.graph.nodes) if node.results}
    found: dict[int, Selector] = {}
    lists = token_lists(outcome.graph)
    for attention in (n for n in outcome.graph.nodes if n.op == "block_attention"):
        wanted: set[Node] = set()
        beside = lists.get(attention.int_attr("layer"))
        todo = [attention["idx"], attention["cnt"], *((beside.ids, beside.cnt) if beside else ())]
        reads: list[Value] = []
        while todo:
            value = todo.pop()
            node = made.get(value)
            if node is None:
                reads += [value] if value in known and value not in graph.consts else []
            elif node not in wanted:
                wanted.add(node)
                todo += node.operands
        nodes = tuple(sorted(wanted, key=lambda n: place[n.out]))
        found[attention.int_attr("layer")] = Selector(
            (*nodes, attention), tuple(dict.fromkeys(reads)), outcome.graph.consts, beside
        )
    return found


@dataclass(frozen=True, eq=False)
class Surveyed:
    """One layer: losses of each candidate and head, and what choosing costs.

    Args:
        losses: ``losses[candidate][head]``; a candidate that leaves the layer dense is None.
        power: Squared dense output per head [H].
        selection: Operations of choosing over those of dense attention, per candidate.
        block_mass: f32[H, nQ, nK], as :class:`Measured` has it.
    """

    losses: tuple[tuple[Loss, ...] | None, ...]
    power: Array
    selection: tuple[float, ...]
    block_mass: Array


@dataclass
class Survey:
    """All layers of a model under all candidates.

    Args:
        text: What the model read.
        first: Rows before it are left out of losses.
    """

    candidates: tuple[Sparse, ...]
    text: Text
    first: int
    layers: dict[int, Surveyed] = field(default_factory=dict)

    @property
    def heads(self) -> int:
        return next(iter(self.layers.values())).power.size


def survey(graph: Graph, candidates: Sequence[Sparse], text: Text, first: int, note: Note = lambda t: None) -> Survey:
    """Run the dense packed ``graph`` on ``text`` once and try every candidate on every layer.

    Args:
        first: Rows before this position are left out of losses.
        note: Told which layer is done.
    """
    found = Survey(tuple(candidates), text, first)
    ways = [selectors(graph, c) for c in candidates]
    inputs = feed(graph, text)
    for value in graph.inputs:
        if value.name == "rows":  # logits are not wanted
            inputs[value.name] = np.zeros(1, np.int32)
    env = bind_dims(graph, inputs)
    sites = {n: n.int_attr("layer") for n in graph.nodes if n.op == "cached_attention"}
    reads = {n: [v for way in ways if layer in way for v in way[layer].reads] for n, layer in sites.items()}

    def instead(node: Node, look: Look) -> list[Array] | None:
        if node not in sites:
            return None
        number = sites[node]
        layer = Layer.of(node, look)
        mine = [way.get(number) for way in ways]
        known = Known()
        tried = [s.run(look, env, layer.heads, known) for s in mine if s is not None]
        got = measure(layer, tried, first)
        losses = iter(got.losses)
        full = node_flops(node, env)
        found.layers[number] = Surveyed(
            tuple(None if s is None else next(losses) for s in mine), got.power,
            tuple(0.0 if s is None else s.flops(env) / full for s in mine), got.block_mass,
        )  # fmt: skip
        note(f"candidates in layer {number}")
        return [got.dense]

    run_watched(graph, inputs, lambda node, look, results: results, instead=instead, reads=reads)
    return found
