"""Read the text form back: ``parse(to_text(g), consts=by_name(g)) == g`` and ``to_text(parse(text)) == text``.

A constant's text says where its data is, not what it is. Data comes from ``consts`` where an entry of the same
name has the same text; what stays unresolved (a digest, a file known by name only, a bare declaration) is kept as
a reference that prints again as it was and says what is missing when somebody loads it.

    graph @NAME(%x: f32[B, 8], ...) -> (%y, ...) {
      phase packed
      dim B in [1, 64]
      const %w: f32[4, 8] as bf16 = cast((bf16[4, 8] file("model.safetensors", 80, 64, bf16[4, 8]))) {dtype = "f32"}
      %y: f32[B, 4] = linear(%x, %w) {attr = value}  // module.path (file.py:12) <rule, rule>
    }
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from fretsaw.ir.builder import normalize_attrs
from fretsaw.ir.consts import ArrayData, Const, ConstData, DeclaredData, DigestData, FileData, OpData
from fretsaw.ir.errors import ParseError
from fretsaw.ir.lexer import MAX_NESTING, Cursor, fits
from fretsaw.ir.node import Graph, Loc, Node, Value
from fretsaw.ir.op import Attr, ShapeError, get_op, has_op
from fretsaw.ir.printer import attr_text, const_text, loc_text
from fretsaw.ir.types import FLOATS, DType, TensorType, numpy_dtype

LOC = re.compile(r"(?P<module>[^\s(<]\S*)?\s*(?:\((?P<source>.*)\))?\s*(?:<(?P<rules>[^<>]*)>)?")
LINES = re.compile(r"\r?\n")  # splitlines() would also split at separators inside a string
MAX_LOC = 4096  # characters; a longer location is one module path
Attrs = tuple[tuple[str, Attr], ...]


def parse(text: str, consts: Mapping[str, Const] | None = None, *, seed: int | None = None) -> Graph:
    """The graph that ``text`` describes. It is read, not verified: broken graphs can be read and looked at.

    Args:
        consts: Constants by value name, used where type and text agree with what ``text`` says.
        seed: Gives constants that are declared without data normal random values, the same for one seed and name.

    Raises:
        ParseError: the text is not in the form above, or reads a value that nothing defined; shows line and column.
    """
    return _Parser(text, consts or {}, seed).graph()


class _Parser:
    def __init__(self, text: str, consts: Mapping[str, Const], seed: int | None) -> None:
        self.lines = [(i, line) for i, line in enumerate(LINES.split(text), 1) if line.strip()]
        self.given, self.seed = consts, seed
        self.known: dict[str, Value] = {}
        self.consts: dict[Value, Const] = {}
        self.dims: dict[str, tuple[int, int]] = {}
        self.nodes: list[Node] = []
        self.phase = "captured"

    def graph(self) -> Graph:
        if not self.lines:
            raise ParseError("the text is empty, expected graph @name(...) -> (...) {", where="line 1")
        name, inputs, output_names, head = self._header(Cursor(self.lines[0][1], self.lines[0][0]))
        closed = False
        for number, line in self.lines[1:]:
            cursor = Cursor(line, number)
            if closed:
                raise cursor.error("text after the end of the graph")
            if cursor.accept("}"):
                closed = True
            else:
                self._line(cursor)
        if not closed:
            raise Cursor(self.lines[-1][1], self.lines[-1][0]).error("the graph is not closed, expected '}'")
        for output in output_names:
            if output not in self.known:
                raise head.error(f"output %{output} is not defined")
        outputs = tuple(self.known[o] for o in output_names)
        return Graph(name, inputs, self.consts, tuple(self.nodes), outputs, self.dims, self.phase)

    def _header(self, cursor: Cursor) -> tuple[str, tuple[Value, ...], list[str], Cursor]:
        cursor.expect("graph")
        cursor.expect("@")
        name = cursor.name()
        cursor.expect("(")
        inputs: list[Value] = []
        while not cursor.accept(")"):
            if inputs:
                cursor.expect(",")
            inputs.append(self._typed(cursor))
        cursor.expect("->")
        cursor.expect("(")
        outputs: list[str] = []
        while not cursor.accept(")"):
            if outputs:
                cursor.expect(",")
            cursor.expect("%")
            outputs.append(cursor.name())
        cursor.expect("{")
        self._end(cursor)
        return name, tuple(inputs), outputs, cursor

    def _line(self, cursor: Cursor) -> None:
        if cursor.accept("phase "):
            self.phase = cursor.name("a phase")
        elif cursor.accept("dim "):
            name = cursor.name("a symbol")
            cursor.expect("in")
            cursor.expect("[")
            low = cursor.integer()
            cursor.expect(",")
            self.dims[name] = (low, cursor.integer())
            cursor.expect("]")
        elif cursor.accept("const "):
            self._const(cursor)
        else:
            self._node(cursor)
            return
        self._end(cursor)

    def _end(self, cursor: Cursor) -> None:
        if not cursor.done():
            raise cursor.error("expected the end of the line")

    def _typed(self, cursor: Cursor) -> Value:
        """``%name: type``, newly defined."""
        cursor.expect("%")
        start = cursor.at
        name = cursor.name()
        if name in self.known:
            cursor.at = start
            raise cursor.error(f"%{name} is defined twice")
        cursor.expect(":")
        value = Value(name, cursor.type())
        self.known[name] = value
        return value

    def _const(self, cursor: Cursor) -> None:
        start = cursor.at
        value = self._typed(cursor)
        if not isinstance(value.type, TensorType):
            cursor.at = start
            raise cursor.error("a constant must be a tensor")
        kept = self._kept(cursor, value.type)
        declared = not cursor.accept("=")
        data = DeclaredData(value.name, value.type, self.seed) if declared else self._data(cursor, value.type)
        const, given = Const(value.type, data, format=kept), self.given.get(value.name)
        if given is not None and given.type == const.type and (declared or const_text(given) == const_text(const)):
            const = given if given.format == kept else replace(given, format=kept)
        self.consts[value] = const

    def _kept(self, cursor: Cursor, type: TensorType) -> str:
        return cursor.name("a storage format") if cursor.accept("as ") else type.dtype

    def _data(self, cursor: Cursor, type: TensorType, depth: int = 0) -> ConstData:
        if depth > MAX_NESTING:
            raise cursor.error(f"the data of a constant is nested over {MAX_NESTING} deep")
        op = cursor.name("file(...), data(...) or an op")
        cursor.expect("(")
        if op == "file":
            return self._file(cursor)
        if op == "data":
            return self._array(cursor, type)
        if op == "declared":
            name = cursor.string()
            cursor.expect(")")
            return DeclaredData(name, type, self.seed)
        operands: list[Const] = []
        while not cursor.accept(")"):
            if operands:
                cursor.expect(",")
            cursor.expect("(")
            inner = cursor.tensor_type()
            kept = self._kept(cursor, inner)
            operands.append(Const(inner, self._data(cursor, inner, depth + 1), format=kept))
            cursor.expect(")")
        attrs = self._attrs(op, cursor)
        return OpData(op, tuple(operands), attrs, cursor.integer() if cursor.accept("#") else 0)

    def _file(self, cursor: Cursor) -> FileData:
        path = Path(cursor.string())
        cursor.expect(",")
        offset = cursor.integer()
        cursor.expect(",")
        nbytes = cursor.integer()
        cursor.expect(",")
        stored = cursor.tensor_type()
        cursor.expect(")")
        return FileData(path, offset, nbytes, stored.dtype, cast("tuple[int, ...]", stored.shape))

    def _array(self, cursor: Cursor, type: TensorType) -> ConstData:
        if cursor.accept("sha256"):
            digest = cursor.string()
            cursor.expect(")")
            return DigestData(digest)
        start = cursor.at
        items = cursor.value()
        cursor.expect(")")
        if not type.is_static or not isinstance(items, tuple) or type.numel != len(items):
            cursor.at = start
            count = f"{type.numel} " if type.is_static and fits(type.numel) else ""
            raise cursor.error(f"data must list the {count}elements of {type}")
        for item in items:
            if not _is_element(type.dtype, item):
                cursor.at = start
                raise cursor.error(f"{attr_text(item)} is no element of {type}")
        shape = cast("tuple[int, ...]", type.shape)
        with np.errstate(over="ignore"):  # a number beyond the dtype's range is its infinity
            return ArrayData(np.array(items, dtype=numpy_dtype(type.dtype)).reshape(shape))

    def _node(self, cursor: Cursor) -> None:
        results: list[Value] = []
        while cursor.text[cursor.at :].lstrip().startswith("%"):
            if results:
                raise cursor.error("expected ',' between results")
            results.append(self._typed(cursor))
            while cursor.accept(","):
                results.append(self._typed(cursor))
            cursor.expect("=")
        op = cursor.name("an op")
        cursor.expect("(")
        operands: list[Value] = []
        while not cursor.accept(")"):
            if operands:
                cursor.expect(",")
            operands.append(self._operand(cursor, results))
        attrs = self._attrs(op, cursor)
        loc = Loc()
        if cursor.accept("//"):
            loc = parse_loc(cursor.rest())
        self._end(cursor)
        self.nodes.append(Node(op, tuple(operands), attrs, tuple(results), loc))

    def _operand(self, cursor: Cursor, results: list[Value]) -> Value:
        cursor.expect("%")
        start = cursor.at
        name = cursor.name()
        found = self.known.get(name)
        if found is None or found in results:
            cursor.at = start
            raise cursor.error(f"%{name} is not defined before its use")
        return found

    def _attrs(self, op: str, cursor: Cursor) -> Attrs:
        """Attributes in normal form where the op accepts them; as written, for the verifier, where it does not."""
        raw = cursor.attrs()
        if has_op(op):
            try:
                return normalize_attrs(get_op(op), raw)
            except ShapeError:
                pass
        return tuple(sorted(raw.items()))


def _is_element(dtype: DType, item: Attr) -> bool:
    if dtype == "bool" or isinstance(item, bool):
        return dtype == "bool" and isinstance(item, bool)
    if dtype in FLOATS:
        return isinstance(item, (int, float))
    info = np.iinfo(numpy_dtype(dtype))  # type: ignore[type-var]
    return isinstance(item, int) and info.min <= item <= info.max


def parse_loc(text: str) -> Loc:
    """Read ``module (source) <rule, rule>``; every part may be absent."""
    found = LOC.fullmatch(text) if len(text) <= MAX_LOC else None
    if found is None:
        return Loc(module=text)
    rules = tuple(r.strip() for r in (found["rules"] or "").split(",") if r.strip())
    loc = Loc(found["module"] or "", found["source"] or "", rules)
    return loc if loc_text(loc) == text else Loc(module=text)  # an odd one is kept as it is written
