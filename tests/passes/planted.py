"""Passes that do a known amount of harm, and promise not to: what checks are tested with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fretsaw.ir import Const, Graph, Node, TensorType, Value, make_node
from fretsaw.ir.consts import ArrayData
from fretsaw.passes.api import Keeps, Outcome, Pass, graph_pass
from fretsaw.passes.kit.contract import Anything

Change = Callable[[Graph], Graph]


def planted(change: Change, keeps: Keeps, phase: str = "canonical") -> Pass:
    """A pass called ``planted`` that makes of a graph what ``change`` does."""

    def run(graph: Graph) -> Outcome:
        return Outcome(change(graph), (graph.nodes[0],))

    made = graph_pass(phase=phase, keeps=keeps, sites=Anything())(run)
    return replace(made, name="planted")


def with_const(graph: Graph, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Graph:
    """The graph with one constant computed anew."""
    value = next(v for v in graph.consts if v.name == name)
    data = change(graph.consts[value].load())
    return replace(graph, consts={**graph.consts, value: Const.of(data.astype(np.float32))})


def scaled_output(graph: Graph, by: float) -> Graph:
    """The first output times 3 and by a third times ``1 + by``. In f32 that rounds; the third is held in 64 bits, so in
    f64 nothing but ``by`` is left."""
    out = graph.outputs[0]
    inner = Value("unscaled", out.type)
    three, third = Value("three", TensorType("f32")), Value("third", TensorType("f32"))
    consts = {
        **graph.consts,
        three: Const(three.tensor, ArrayData(np.array(3.0))),
        third: Const(third.tensor, ArrayData(np.array((1 + by) / 3))),
    }
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(node if out not in node.results else replace(node, results=(inner,)))
    nodes.append(make_node("mul", (inner, three), {}, ["tripled"]))
    nodes.append(make_node("mul", (nodes[-1].out, third), {}, [out.name]))
    return replace(graph, nodes=tuple(nodes), consts=consts)
