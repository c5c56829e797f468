"""Reference interpreter: runs a graph with the ops' NumPy references. Slow, readable, the meaning of the IR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fretsaw.ir.dims import Dim, evaluate, sym
from fretsaw.ir.errors import FretsawError, VerifyError
from fretsaw.ir.node import Graph, Node, Value
from fretsaw.ir.op import Attr, get_op
from fretsaw.ir.types import HandleType, TensorType, numpy_dtype


def bind_dims(graph: Graph, inputs: Mapping[str, object]) -> dict[str, int]:
    """Values of the symbols from the shapes of the inputs.

    Raises:
        VerifyError: an input is missing, has the wrong rank or dtype, or two shapes disagree on a symbol.
    """
    env: dict[str, int] = {}
    for value in graph.inputs:
        if value.name not in inputs:
            raise VerifyError(f"input %{value.name} was not given", where=graph.name)
        if isinstance(value.type, HandleType):
            handle = inputs[value.name]
            kept = getattr(handle, "format", value.type.format)
            if kept != value.type.format:
                what = f"input %{value.name} is {value.type}, the one given keeps {kept}"
                raise VerifyError(what, where=graph.name)
            env.update(getattr(handle, "dims", {}))  # sizes that only the cache knows
            continue
        array = inputs[value.name]
        if not isinstance(array, np.ndarray) or array.ndim != value.type.rank:
            raise VerifyError(f"input %{value.name} must be an array of rank {value.type.rank}", where=graph.name)
        for dim, size in zip(value.type.shape, array.shape, strict=True):
            if isinstance(dim, Dim) and dim.terms[0][1] == 1 and len(dim.terms[0][0]) == 1 and len(dim.symbols) == 1:
                rest = evaluate(dim - sym(dim.terms[0][0][0]), {})  # B + 1 says what B is, too
                env.setdefault(dim.terms[0][0][0], size - rest)
    for value in graph.inputs:
        if isinstance(value.type, TensorType):
            try:
                want = tuple(evaluate(d, env) for d in value.type.shape)
            except KeyError as error:
                what = f"no input has {error.args[0]} as a whole axis, so its value is not known"
                raise VerifyError(what, where=graph.name) from None
            got = np.asarray(inputs[value.name]).shape
            if want != got:
                raise VerifyError(f"input %{value.name} has shape {got}, expected {want}", where=graph.name)
    return env


def resolve_attrs(node: Node, env: Mapping[str, int]) -> dict[str, Attr]:
    """Attributes with every symbolic dim replaced by its value, defaults filled in."""
    op = get_op(node.op)
    given = dict(node.attrs)
    return {name: _resolve(given.get(name, spec.default), env) for name, spec in op.attrs.items()}


def _resolve(value: Attr, env: Mapping[str, int]) -> Attr:
    if isinstance(value, Dim):
        return evaluate(value, env)
    if isinstance(value, tuple):
        return tuple(_resolve(v, env) for v in value)
    return value


def run_node(node: Node, operands: Sequence[object], env: Mapping[str, int]) -> list[np.ndarray]:
    """Run one node and check its results against their types.

    Raises:
        FretsawError: the reference returned another shape or dtype than the shape rule promised (our bug).
    """
    results = get_op(node.op).reference(operands, resolve_attrs(node, env))
    for value, array in zip(node.results, results, strict=True):
        kind = value.tensor
        want = tuple(evaluate(d, env) for d in kind.shape)
        if array.shape != want or array.dtype != numpy_dtype(kind.dtype):
            raise FretsawError(
                f"{node.op}: the reference gave {array.dtype}{array.shape}, its shape rule says {kind} = {want}",
                where=f"%{value.name}  {node.loc.module}",
            )
    return list(results)


def evaluate_graph(graph: Graph, inputs: Mapping[str, object], keep: Sequence[Value] = ()) -> dict[Value, np.ndarray]:
    """Run ``graph`` and return the values of its outputs and of ``keep``.

    Values are dropped after their last use, so memory stays near that of the widest cut.
    """
    env = bind_dims(graph, inputs)
    wanted = {*graph.outputs, *keep}
    last: dict[Value, int] = {v: i for i, node in enumerate(graph.nodes) for v in node.operands}
    live: dict[Value, object] = {v: inputs[v.name] for v in graph.inputs}
    kept: dict[Value, np.ndarray] = {v: np.asarray(live[v]) for v in graph.inputs if v in wanted}
    for value in wanted & set(graph.consts):
        kept[value] = graph.consts[value].load()
    for i, node in enumerate(graph.nodes):
        operands = [live[v] if v in live else graph.consts[v].load() for v in node.operands]
        for value, array in zip(node.results, run_node(node, operands, env), strict=True):
            live[value] = array
            if value in wanted:
                kept[value] = array
        for value in {*node.operands, *node.results}:
            if last.get(value, -1) <= i:
                live.pop(value, None)
    return kept


def run(graph: Graph, inputs: Mapping[str, object]) -> list[np.ndarray]:
    """Outputs of ``graph`` on ``inputs`` (arrays by name; handles as the objects their ops expect)."""
    values = evaluate_graph(graph, inputs)
    return [values[v] for v in graph.outputs]
