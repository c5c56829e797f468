"""The reference interpreter with somebody looking on: every node's values as it runs, and a say in what goes on.

A watcher sees each node when it has run, and may put other arrays in place of its results. That is how one run of a
sparse graph gives the keys and queries of the dense model: attention answers densely while its lists are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fretsaw.ir import Graph, Node, Value
from fretsaw.ir.interp import bind_dims, run_node
from fretsaw.passes.kit.inspector import Look

Array = np.ndarray
Watch = Callable[[Node, Look, list[Array]], list[Array]]


def run_watched(
    graph: Graph,
    inputs: Mapping[str, object],
    watch: Watch,
    *,
    instead: Callable[[Node, Look], list[Array] | None] | None = None,
    reads: Mapping[Node, Sequence[Value]] | None = None,
) -> dict[Value, Array]:
    """Run ``graph`` and return its outputs; one value is in memory as long as somebody still reads it.

    Args:
        inputs: As :func:`fretsaw.ir.run` takes them.
        watch: Called after every node with a function from values that are alive to what they hold, and the node's
            results; returns what goes on in their place.
        instead: Asked before a node runs; what it returns stands for the node's results, None: the node runs.
        reads: Values that the watcher looks at when a node has run, beside its operands.
    """
    env = bind_dims(graph, inputs)
    extra = reads or {}
    last: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        last.update(dict.fromkeys([*node.operands, *extra.get(node, ())], i))
    live: dict[Value, object] = {v: inputs[v.name] for v in graph.inputs}
    kept: dict[Value, Array] = {}

    def look(value: Value) -> object:
        return live[value] if value in live else graph.consts[value].load()

    wanted = graph.output_set
    for i, node in enumerate(graph.nodes):
        given = None if instead is None else instead(node, look)
        results = run_node(node, [look(v) for v in node.operands], env) if given is None else given
        results = watch(node, look, results)
        for value, array in zip(node.results, results, strict=True):
            live[value] = array
            if value in wanted:
                kept[value] = array
        for value in {*node.operands, *node.results, *extra.get(node, ())}:
            if last.get(value, -1) <= i:
                live.pop(value, None)
    for value in wanted - set(kept):
        kept[value] = np.asarray(look(value))
    return kept
