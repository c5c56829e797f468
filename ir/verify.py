"""The verifier. A graph is well formed when all of these hold:

 1. Names of inputs, constants and results are unique.
 2. Every operand is an input, a constant or the result of an earlier node (the same object by name and type).
 3. Every op is in the catalogue.
 4. The operand count fits the op's slots.
 5. Attributes are declared, typed, required ones present, defaults left out, sorted.
 6. The op's shape rule accepts the operands and gives exactly the types of the results.
 7. Every symbol in a shape has a range in ``dims``, with 0 <= low <= high.
 8. Every output is an input, a constant or a result.
 9. Constants are static tensors and their data has the type's size where that is known without loading.
10. Handles are inputs; nothing but effectful ops reads them.
11. The graph obeys the spec of its phase (``ir/phases.py``).
"""

from __future__ import annotations

from collections.abc import Iterator

from fretsaw.ir.builder import make_node
from fretsaw.ir.consts import FileData
from fretsaw.ir.dims import Dim
from fretsaw.ir.errors import VerifyError
from fretsaw.ir.node import Graph, Node, Value
from fretsaw.ir.op import get_op, has_op
from fretsaw.ir.phases import check_phase
from fretsaw.ir.types import ITEMSIZE, HandleType, TensorType


def verify(graph: Graph, *, when: str = "") -> None:
    """Check every invariant above; raise on the first broken one.

    Raises:
        VerifyError: names the invariant, the node, its module path, and shows the line.
    """
    known: dict[str, Value] = {}
    for value in [*graph.inputs, *graph.consts]:
        _define(graph, known, value, when)
    for value in graph.inputs:
        _check_symbols(graph, value, None, when)
    for value, const in graph.consts.items():
        _check_const(graph, value, const.type, when)
        data = const.data
        if (
            isinstance(data, FileData)
            and data.nbytes != const.nbytes // ITEMSIZE[const.type.dtype] * ITEMSIZE[data.dtype]
        ):
            raise _error(graph, 9, f"constant %{value.name} is {const.type}, its data has {data.nbytes} bytes", when)
    for node in graph.nodes:
        for operand in node.operands:
            if known.get(operand.name) != operand:
                raise _error(graph, 2, f"{node.op}: %{operand.name} is not defined before its use", when, node)
        if not node.__dict__.get("_checked"):  # a node is frozen: what held once holds in every graph
            _check_node(graph, node, when)
            node.__dict__["_checked"] = True
        for value in node.results:
            _define(graph, known, value, when, node)
            _check_symbols(graph, value, node, when)
    for value in graph.outputs:
        if known.get(value.name) != value:
            raise _error(graph, 8, f"output %{value.name} is not defined", when)
    check_phase(graph, when=when)


def _define(graph: Graph, known: dict[str, Value], value: Value, when: str, node: Node | None = None) -> None:
    if value.name in known:
        raise _error(graph, 1, f"the name %{value.name} is used twice", when, node)
    known[value.name] = value


def _check_node(graph: Graph, node: Node, when: str) -> None:
    if not has_op(node.op):
        raise _error(graph, 3, f"there is no op {node.op}", when, node)
    op = get_op(node.op)
    try:
        again = make_node(node.op, node.operands, dict(node.attrs), [v.name for v in node.results] or [node.op])
    except VerifyError as error:
        raise _error(graph, 6, error.what, when, node) from None
    if again.attrs != node.attrs:
        raise _error(graph, 5, f"{node.op}: attributes are not in normal form", when, node)
    if [v.type for v in again.results] != [v.type for v in node.results]:
        got = ", ".join(str(v.type) for v in node.results)
        want = ", ".join(str(v.type) for v in again.results)
        raise _error(graph, 6, f"{node.op}: result is declared {got}, its shape rule gives {want}", when, node)
    for slot, operand in zip(op.slot_names(len(node.operands)), node.operands, strict=True):
        if isinstance(operand.type, HandleType) and slot not in op.effects:
            raise _error(graph, 10, f"{node.op} reads handle %{operand.name} without declaring an effect", when, node)


def _check_const(graph: Graph, value: Value, type: TensorType, when: str) -> None:
    if value.type != type or not type.is_static:
        raise _error(graph, 9, f"constant %{value.name} is declared {value.type}, its data is {type}", when)


def _symbols(value: Value) -> Iterator[str]:
    if isinstance(value.type, TensorType):
        for dim in value.type.shape:
            if isinstance(dim, Dim):
                yield from dim.symbols


def _check_symbols(graph: Graph, value: Value, node: Node | None, when: str) -> None:
    for name in _symbols(value):
        low, high = graph.dims.get(name, (0, -1))
        if not 0 <= low <= high:
            raise _error(graph, 7, f"%{value.name}: symbol {name} has no valid range", when, node)


def _error(graph: Graph, number: int, what: str, when: str, node: Node | None = None) -> VerifyError:
    from fretsaw.ir.printer import context_lines

    where = graph.name
    if node is not None:
        name = f"%{node.results[0].name}" if node.results else node.op
        where = "   ".join(filter(None, [name, node.loc.module, node.loc.source]))
    text = context_lines(graph, node) if node is not None else ""
    phase = f"phase {graph.phase}"
    return VerifyError(
        f"{what} (invariant {number})", where=where, when=", ".join(filter(None, [when, phase])), context=text
    )
