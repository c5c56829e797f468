"""The same graph in float64: rounding is then too small to hide a mistake in the algebra."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fretsaw.ir import Const, Graph, Node, OpData, TensorType, Value
from fretsaw.ir.builder import make_node
from fretsaw.ir.consts import MOVES, ArrayData

SHORT = 4096  # elements up to which a constant is widened by its shortest decimal


def as_f64(graph: Graph) -> Graph:
    """The graph with every f32 value in f64; small constants are widened by their shortest decimal (1e-05 stays 1e-05).

    Tables of embeddings stay in f32 and their rows are widened, so that a run need not widen whole tables.
    """
    narrow = _tables(graph)
    consts = {v if v in narrow else _wide(v): c if v in narrow else _wide_const(c) for v, c in graph.consts.items()}
    nodes = [n for node in graph.nodes for n in _wide_node(node, narrow)]
    also_read = {v: c for v, c in graph.consts.items() if v in narrow and any(u.slot != "table" for u in graph.uses(v))}
    consts |= {_beside(v): _wide_const(c) for v, c in also_read.items()}
    return replace(
        graph, inputs=tuple(map(_wide, graph.inputs)), consts=consts, nodes=tuple(nodes),
        outputs=tuple(map(_wide, graph.outputs)),
    )  # fmt: skip


def _tables(graph: Graph) -> frozenset[Value]:
    """f32 constants that an embedding reads rows of and whose elements are exact in f32."""
    tables = {node["table"] for node in graph.nodes if node.op == "embedding"} - graph.output_set
    consts = {v: graph.consts[v] for v in tables if v in graph.consts}
    return frozenset(v for v, c in consts.items() if c.type.dtype == "f32" and _exact(c))


def _exact(const: Const) -> bool:
    """The elements are stored somewhere, and not rounded from arithmetic or to be read as decimals."""
    if isinstance(const.data, OpData):
        return const.data.op in MOVES and all(map(_exact, const.data.operands))
    return not (isinstance(const.data, ArrayData) and const.data.array.size <= SHORT)


def _beside(value: Value) -> Value:
    """The f64 form of a table that other nodes read too (tied embeddings)."""
    return Value(f"{value.name}.f64", replace(value.tensor, dtype="f64"))


def _wide(value: Value) -> Value:
    kind = value.type
    return (
        Value(value.name, replace(kind, dtype="f64")) if isinstance(kind, TensorType) and kind.dtype == "f32" else value
    )


def _wide_node(node: Node, narrow: frozenset[Value]) -> Iterator[Node]:
    if node.op == "embedding" and node["table"] in narrow:
        rows = replace(node, results=(Value(f"{node.out.name}.f32", node.out.type),))
        yield rows
        yield make_node("cast", rows.results, {"dtype": "f64"}, [node.out.name], node.loc)
        return
    attrs = tuple((k, "f64" if k == "dtype" and v == "f32" else v) for k, v in node.attrs)
    if node.op == "full" and node.out.tensor.dtype == "f32":  # f32 is its default
        attrs = tuple(sorted({**dict(attrs), "dtype": "f64"}.items()))
    operands = tuple(_beside(v) if v in narrow else _wide(v) for v in node.operands)
    yield replace(node, operands=operands, results=tuple(map(_wide, node.results)), attrs=attrs)


def _wide_const(const: Const) -> Const:
    if const.type.dtype != "f32":
        return const
    kind = replace(const.type, dtype="f64")
    kept = "f64" if const.format == "f32" else const.format
    data = const.data
    if isinstance(data, OpData):
        attrs = tuple((k, "f64" if k == "dtype" and v == "f32" else v) for k, v in data.attrs)
        return Const(kind, OpData(data.op, tuple(map(_wide_const, data.operands)), attrs, data.result), format=kept)
    if isinstance(data, ArrayData) and data.array.size <= SHORT:
        flat = [float(str(x)) for x in data.array.ravel()]
        return Const(kind, ArrayData(np.array(flat, np.float64).reshape(data.array.shape)), format=kept)
    return Const(kind, data, format=kept)
