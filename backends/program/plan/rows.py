"""Trace a value back through reshapes and slices to the linears whose output features it rearranges.

The trace is done on feature numbers: an array that says, for each feature of the value, which output row of which
linear it is. So q, k and v come out of any fused projection, in any order (thirds, per head, per group), and the
weight can be packed in the order that the attention kernel wants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fretsaw.ir import Dim, Graph, Node, Value


@dataclass(frozen=True)
class Rows:
    """Features of a value as output rows of a linear.

    Args:
        linear: The linear they come from.
        rows: i64 array shaped like the value without its token axis.
        path: Reshapes and slices between, nearest the value first.
    """

    linear: Node
    rows: np.ndarray
    path: tuple[Node, ...]


def trace_rows(graph: Graph, value: Value) -> Rows | None:
    """Where the features of ``value`` [T, ...] come from; None when it is no rearranged linear."""
    path: list[Node] = []
    node = graph.producer(value)
    while node is not None and node.op in ("reshape", "slice"):
        path.append(node)
        node = graph.producer(node.operands[0])
    if node is None or node.op != "linear" or not isinstance(node.out.tensor.shape[-1], int):
        return None
    tokens = node.out.tensor.shape[0]
    rows = np.arange(node.out.tensor.shape[-1], dtype=np.int64)
    for step in reversed(path):
        shape = step.out.tensor.shape
        if shape[0] != tokens or any(isinstance(d, Dim) for d in shape[1:]):
            return None  # tokens and features mix
        if step.op == "reshape":
            rows = rows.reshape([int(d) for d in shape[1:] if isinstance(d, int)])
            continue
        axis = step.int_attr("axis") - 1
        if axis < 0:
            return None
        index = [slice(None)] * rows.ndim
        index[axis] = slice(step.int_attr("start"), step.int_attr("end"), step.int_attr("step"))
        rows = rows[tuple(index)]
    return Rows(node, rows, tuple(path))


def feeds_only(graph: Graph, linear: Node, nodes: set[int]) -> bool:
    """Every read of the linear's features, through reshapes and slices, is by one of ``nodes`` (by identity)."""
    todo = [linear.out]
    while todo:
        value = todo.pop()
        if value in graph.output_set:
            return False
        for use in graph.uses(value):
            if id(use.node) not in nodes:
                return False
            if use.node.op in ("reshape", "slice"):
                todo.append(use.node.out)
    return True
