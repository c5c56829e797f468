"""The verifier. A graph is well formed when all of these hold:

 1. Names of inputs, constants and results are unique, and the text form can hold them.
 2. Every operand is an input, a constant or the result of an earlier node (the same object by name and type).
 3. Every op is in the catalogue.
 4. The operand count fits the op's slots.
 5. Attributes are declared, typed, required ones present, defaults left out, sorted.
 6. The op's shape rule accepts the operands and gives exactly the types of the results.
 7. Every symbol in a shape has a range in ``dims``, with 0 <= low <= high; no size is negative or over 64 bits.
 8. Every output is an input, a constant or a result.
 9. Constants are static tensors, and their data has that type as far as that is known without loading.
10. Handles are inputs; nothing but effectful ops reads them.
11. The graph obeys the spec of its phase (``ir/phases.py``).
12. Storage formats of constants and handles are registered and can hold the dtype (``ir/formats.py``).
"""

from __future__ import annotations

from collections.abc import Iterator

from fretsaw.ir.builder import make_node
from fretsaw.ir.const_check import const_problem
from fretsaw.ir.consts import Const
from fretsaw.ir.dims import Dim, int_text
from fretsaw.ir.errors import VerifyError
from fretsaw.ir.excerpt import excerpt, place
from fretsaw.ir.formats import FORMATS
from fretsaw.ir.lexer import MAX_INT, NUMBERS, WORD, fits, is_name
from fretsaw.ir.node import Graph, Node, Value
from fretsaw.ir.op import ShapeError, get_op, has_op
from fretsaw.ir.phases import check_phase
from fretsaw.ir.types import ITEMSIZE, HandleType, TensorType


def verify(graph: Graph, *, when: str = "") -> None:
    """Check every invariant above; raise on the first broken one.

    Raises:
        VerifyError: names the invariant, the node, its module path, and shows the line.
    """
    known: dict[str, Value] = {}
    _check_head(graph, when)
    for value in [*graph.inputs, *graph.consts]:
        _define(graph, known, value, when)
    for value in graph.inputs:
        _check_symbols(graph, value, None, when)
    for value, const in graph.consts.items():
        _check_const(graph, value, const, when)
    for node in graph.nodes:
        for i, operand in enumerate(node.operands):
            if known.get(operand.name) != operand:
                what = f"{node.op}: %{operand.name} is not defined before its use"
                raise _error(graph, 2, what, when, node, slot=i)
        if not node.__dict__.get("_checked"):  # a node is frozen: what held once holds in every graph
            _check_node(graph, node, when)
            node.__dict__["_checked"] = True
            for value in node.results:
                _check_type(graph, value, when, node)
        for value in node.results:
            _define(graph, known, value, when, node)
            _check_symbols(graph, value, node, when)
    for value in graph.outputs:
        if known.get(value.name) != value:
            raise _error(graph, 8, f"output %{value.name} is not defined", when)
    check_phase(graph, when=when)


def _define(graph: Graph, known: dict[str, Value], value: Value, when: str, node: Node | None = None) -> None:
    if not is_name(value.name):
        raise _error(graph, 1, f"{value.name!r} is no name: the text form cannot hold it", when, node)
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
        cause = error.__cause__ if isinstance(error.__cause__, ShapeError) else ShapeError("")
        raise _error(graph, 6, error.what, when, node, slot=cause.slot, attr=cause.attr) from None
    if len(again.attrs) != len(node.attrs) or again.attrs != node.attrs or not _same_kinds(again, node):
        raise _error(graph, 5, f"{node.op}: attributes are not in normal form", when, node)
    if [v.type for v in again.results] != [v.type for v in node.results]:
        got = ", ".join(str(v.type) for v in node.results)
        want = ", ".join(str(v.type) for v in again.results)
        raise _error(
            graph, 6, f"{node.op}: result is declared {got}, its shape rule gives {want}", when, node, result=0
        )
    for slot, operand in zip(op.slot_names(len(node.operands)), node.operands, strict=True):
        if isinstance(operand.type, HandleType) and slot not in op.effects:
            what = f"{node.op} reads handle %{operand.name} without declaring an effect"
            raise _error(graph, 10, what, when, node, slot=slot)


def _same_kinds(a: Node, b: Node) -> bool:
    """1 is equal to 1.0, but prints otherwise."""
    return all(type(x) is type(y) for (_, x), (_, y) in zip(a.attrs, b.attrs, strict=True))


def _check_head(graph: Graph, when: str) -> None:
    """Name and symbols of the graph, and types of inputs and constants."""
    if not is_name(graph.name):
        raise _error(graph, 1, f"{graph.name!r} is no name: the text form cannot hold it", when)
    for name, (low, high) in graph.dims.items():
        if not WORD.fullmatch(name) or name in NUMBERS or not name.isprintable():
            raise _error(graph, 7, f"{name!r} is no name for a symbol", when)
        if not 0 <= low <= high <= MAX_INT:
            raise _error(graph, 7, f"symbol {name} has no valid range: [{int_text(low)}, {int_text(high)}]", when)
    for value in [*graph.inputs, *graph.consts]:
        _check_type(graph, value, when)


def _check_type(graph: Graph, value: Value, when: str, node: Node | None = None) -> None:
    """The dtype exists and no size is negative or too large."""
    kind = value.type
    if isinstance(kind, HandleType):
        if not is_name(kind.kind):
            raise _error(graph, 1, f"%{value.name}: {kind.kind!r} is no name for a kind of handle", when, node)
        if kind.format not in FORMATS:
            what = f"%{value.name}: there is no storage format {kind.format}: {', '.join(FORMATS)}"
            raise _error(graph, 12, what, when, node)
        return
    if kind.dtype not in ITEMSIZE:
        raise _error(graph, 7, f"%{value.name}: there is no dtype {kind.dtype}", when, node)
    for dim in kind.shape:
        if not fits(dim) or (isinstance(dim, int) and dim < 0):
            raise _error(graph, 7, f"%{value.name}: a size is negative or over 64 bits", when, node)


def _check_const(graph: Graph, value: Value, const: Const, when: str) -> None:
    if value.type != const.type or not const.type.is_static:
        raise _error(graph, 9, f"constant %{value.name} is declared {value.type}, its data is {const.type}", when)
    if not const.__dict__.get("_checked"):  # frozen like a node
        problem = const_problem(const)
        if problem:
            raise _error(graph, 9, f"constant %{value.name} {problem}", when)
        const.__dict__["_checked"] = True


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


def _error(
    graph: Graph, number: int, what: str, when: str, node: Node | None = None, *, slot: str | int | None = None,
    attr: str | None = None, result: int | None = None,
) -> VerifyError:  # fmt: skip
    where = graph.name if node is None else place(node)
    text = "" if node is None else excerpt(graph, node, slot=slot, attr=attr, result=result)
    phase = f"phase {graph.phase}"
    after = when.startswith("after ")  # a rule made this graph: nothing that a user wrote into a checkpoint can
    hint = "a bug of that pass: send this message and the IR that `--dump-ir DIR` writes" if after else ""
    when = ", ".join(filter(None, [when, phase]))
    return VerifyError(f"{what} (invariant {number})", where=where, when=when, context=text, hint=hint)
