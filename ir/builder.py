"""Build a graph node by node; result types come from the ops' shape rules, names are deterministic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fretsaw.ir.consts import Const
from fretsaw.ir.dims import Dim
from fretsaw.ir.errors import VerifyError
from fretsaw.ir.lexer import NUMBERS, fits
from fretsaw.ir.node import Graph, Loc, Node, Value
from fretsaw.ir.op import Attr, AttrSpec, OpDef, ShapeError, get_op
from fretsaw.ir.types import ValueType


def normalize_attrs(op: OpDef, attrs: Mapping[str, Attr]) -> tuple[tuple[str, Attr], ...]:
    """Sorted attributes without those that equal their default; ints become floats where floats are declared.

    Raises:
        ShapeError: an unknown attribute, a missing one, or one of the wrong type.
    """
    out: dict[str, Attr] = {}
    for name, spec in op.attrs.items():
        if name not in attrs:
            if spec.required:
                raise ShapeError(f"attribute {name} is missing")
            continue
        try:
            value = _checked(name, spec, attrs[name])
        except ShapeError as error:
            error.attr = name
            raise
        if spec.required or value != spec.default:
            out[name] = value
    unknown = set(attrs) - set(op.attrs)
    if unknown:
        raise ShapeError(f"unknown attribute {', '.join(sorted(unknown))}", attr=min(unknown))
    return tuple(sorted(out.items()))


def _checked(name: str, spec: AttrSpec, value: Attr) -> Attr:
    kinds = spec.kind if isinstance(spec.kind, tuple) else (spec.kind,)
    if not _plain(value):
        raise ShapeError(f"attribute {name} holds what is no attribute value, or an integer over 64 bits")
    if value is None and not spec.required:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds and int not in kinds:
        value = float(value)
    is_dim = isinstance(value, Dim) and int in kinds  # sizes may be symbolic
    if not is_dim and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        raise ShapeError(f"attribute {name} must be {' or '.join(k.__name__ for k in kinds)}, is {value!r}")
    if isinstance(value, float) and value != value:
        value = math.nan  # one NaN, so that nodes that print the same are equal
    if tuple in kinds and not (isinstance(value, tuple) and all(_is_size(v) for v in value)):
        raise ShapeError(f"attribute {name} must be a list of sizes, is {value!r}")
    if spec.choices and value not in spec.choices:
        raise ShapeError(f"attribute {name} must be one of {', '.join(spec.choices)}, is {value!r}")
    return value


def _is_size(value: object) -> bool:
    return isinstance(value, (int, Dim)) and not isinstance(value, bool)


def _plain(value: object) -> bool:
    """Whether ``value`` is plain data that the text form can hold."""
    if isinstance(value, tuple):
        return all(map(_plain, value))
    if isinstance(value, (int, Dim)):
        return fits(value) and not (isinstance(value, Dim) and value.symbols & NUMBERS)
    return value is None or isinstance(value, (float, str))


def make_node(
    op: str, operands: Sequence[Value], attrs: Mapping[str, Attr], names: Sequence[str], loc: Loc = Loc()
) -> Node:
    """A checked node whose results are called ``names`` (padded with .1, .2 when there are more results).

    Raises:
        VerifyError: unknown op, wrong operand count, attributes or types.
    """
    try:
        definition = get_op(op)
    except KeyError:
        raise VerifyError(f"there is no op {op}", where=loc.module) from None
    try:
        if len(operands) < definition.required_slots or (
            not definition.variadic and len(operands) > len(definition.slots)
        ):
            raise ShapeError(f"takes {' '.join(definition.slots) or 'no operands'}, got {len(operands)} operands")
        kept = normalize_attrs(definition, attrs)
        filled = {n: spec.default for n, spec in definition.attrs.items() if spec.default is not None} | dict(kept)
        types = _result_types(definition, operands, filled)
    except ShapeError as error:
        raise VerifyError(f"{op}: {error}", where=loc.module) from error  # the cause names the culprit
    base = names[0] if names else op
    full = [names[i] if i < len(names) else f"{base}.{i}" for i in range(len(types))]
    results = tuple(Value(n, t) for n, t in zip(full, types, strict=True))
    return Node(op, tuple(operands), kept, results, loc)


def _result_types(op: OpDef, operands: Sequence[Value], attrs: Mapping[str, Attr]) -> Sequence[ValueType]:
    """The shape rule's answer. A rule that trips over a rank or a symbol where it wants a number refuses, too."""
    try:
        return op.shape_rule([v.type for v in operands], attrs)
    except (AssertionError, AttributeError, IndexError, TypeError, ValueError):
        got = ", ".join(str(v.type) for v in operands)
        raise ShapeError(f"cannot take {got or 'these attributes'}") from None


class GraphBuilder:
    """Collects inputs, constants and nodes; ``finish`` makes the graph."""

    def __init__(self, name: str, dims: Mapping[str, tuple[int, int]] | None = None) -> None:
        self.name = name
        self.dims = dict(dims or {})
        self._inputs: list[Value] = []
        self._consts: dict[Value, Const] = {}
        self._nodes: list[Node] = []
        self._names: set[str] = set()

    @property
    def inputs(self) -> tuple[Value, ...]:
        return tuple(self._inputs)

    def fresh(self, base: str) -> str:
        """``base``, or ``base_1``, ``base_2``, ... when it is taken."""
        name, i = base, 0
        while name in self._names:
            i += 1
            name = f"{base}_{i}"
        self._names.add(name)
        return name

    def input(self, name: str, type: ValueType) -> Value:
        value = Value(self.fresh(name), type)
        self._inputs.append(value)
        return value

    def const(self, name: str, const: Const) -> Value:
        value = Value(self.fresh(name), const.type)
        self._consts[value] = const
        return value

    def emit(self, op: str, *operands: Value, name: str = "", loc: Loc = Loc(), **attrs: Attr) -> Value:
        """Append a node and return its first result."""
        return self.emit_node(op, operands, attrs, name=name, loc=loc).results[0]

    def emit_node(
        self, op: str, operands: Sequence[Value], attrs: Mapping[str, Attr], name: str = "", loc: Loc = Loc()
    ) -> Node:
        """Append a node, for ops with several results or none."""
        node = make_node(op, operands, attrs, [self.fresh(name or op)], loc)
        self._names.update(v.name for v in node.results)
        self._nodes.append(node)
        return node

    def append(self, node: Node) -> None:
        """Append a node made elsewhere; its names must be new here."""
        self._names.update(v.name for v in node.results)
        self._nodes.append(node)

    def finish(self, outputs: Sequence[Value], phase: str = "captured") -> Graph:
        return Graph(
            self.name, tuple(self._inputs), dict(self._consts), tuple(self._nodes), tuple(outputs), self.dims, phase
        )
