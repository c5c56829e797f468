"""Text form of a graph; ``ir/parser.py`` describes it and reads it back. Broken graphs print too."""

from __future__ import annotations

import numpy as np

from fretsaw.ir.consts import ArrayData, Const, DeclaredData, DigestData, FileData
from fretsaw.ir.dims import Dim, dim_text, int_text
from fretsaw.ir.node import Graph, Loc, Node, Value
from fretsaw.ir.op import Attr

_ESCAPED = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
MAX_INLINE = 8  # elements; larger arrays print as a digest


def to_text(graph: Graph) -> str:
    """The whole graph as text, no trailing newline."""
    inputs = ", ".join(map(str, graph.inputs))
    outputs = ", ".join(f"%{v.name}" for v in graph.outputs)
    lines = [f"graph @{graph.name}({inputs}) -> ({outputs}) {{"]
    lines += [f"  phase {graph.phase}"] if graph.phase != "captured" else []
    lines += [f"  dim {name} in [{int_text(low)}, {int_text(high)}]" for name, (low, high) in graph.dims.items()]
    lines += [f"  const {value}{_const_tail(value, const)}" for value, const in graph.consts.items()]
    lines += [f"  {node_text(node)}" for node in graph.nodes]
    return "\n".join([*map(_one_line, lines), "}"])


def _const_tail(value: Value, const: Const) -> str:
    data = const.data
    declared = isinstance(data, DeclaredData) and data.name == value.name
    return kept_text(const) + ("" if declared else f" = {const_text(const)}")


def kept_text(const: Const) -> str:
    """`` as bf16`` where a constant is not kept in its dtype."""
    return "" if const.format == const.type.dtype else f" as {const.format}"


def const_text(const: Const) -> str:
    """Where a constant's data is: ``file(...)``, ``data(...)``, ``declared(...)`` or an op on other constants."""
    data = const.data
    if isinstance(data, DigestData):
        return f"data(sha256 {quoted(data.digest)})"
    if isinstance(data, DeclaredData):
        return f"declared({quoted(data.name)})"
    if isinstance(data, FileData):
        stored = f"{data.dtype}[{', '.join(map(str, data.shape))}]"
        return f"file({quoted(data.path.name)}, {data.offset}, {data.nbytes}, {stored})"
    if isinstance(data, ArrayData):
        if data.array.size <= MAX_INLINE and _only_common_nans(data.array):
            return f"data([{', '.join(attr_text(x) for x in data.array.ravel().tolist())}])"
        return f'data(sha256 "{data.digest}")'
    inner = ", ".join(f"({c.type}{kept_text(c)} {const_text(c)})" for c in data.operands)
    return f"{data.op}({inner}){attrs_text(data.attrs)}" + (f" #{data.result}" if data.result else "")


def _only_common_nans(array: np.ndarray) -> bool:
    """NaN comes in many bit patterns and prints as one: an array with another one has to print as its digest."""
    if array.dtype.kind != "f":
        return True
    odd = array[np.isnan(array)]
    return bool(odd.tobytes() == np.full(odd.shape, np.nan, array.dtype).tobytes())


def node_text(node: Node) -> str:
    """One line: results, op, operands, attributes, location."""
    results = ", ".join(map(str, node.results))
    operands = ", ".join(f"%{v.name}" for v in node.operands)
    left = f"{results} = " if results else ""
    loc = loc_text(node.loc)
    return f"{left}{node.op}({operands}){attrs_text(node.attrs)}{f'  // {loc}' if loc else ''}"


def attrs_text(attrs: tuple[tuple[str, Attr], ...]) -> str:
    return f" {{{', '.join(f'{k} = {attr_text(v)}' for k, v in attrs)}}}" if attrs else ""


def attr_text(value: Attr) -> str:
    """A value as text: floats round-trip exactly, strings are quoted, tuples in brackets. What is no attribute value
    prints as its quoted ``repr``, so that a broken graph can be looked at.
    """
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return float.__repr__(value)  # also of NumPy's floats
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(attr_text, value))}]"
    return dim_text(value) if isinstance(value, (int, Dim)) else quoted(repr(value))


def quoted(text: str) -> str:
    """A string literal: quote, backslash and whatever is not printable are escaped."""
    return '"' + "".join(_ESCAPED.get(c) or (c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text) + '"'


def _one_line(text: str) -> str:
    """Text without what would end the line or cannot be written to a file."""
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)


def loc_text(loc: Loc) -> str:
    """``module (source) <rule, rule>``, absent parts left out, always on one line."""
    if not (loc.module or loc.source or loc.rules):
        return ""
    parts = [loc.module]
    if loc.source:
        parts.append(f"({loc.source})")
    if loc.rules:
        parts.append(f"<{', '.join(loc.rules)}>")
    return _one_line(" ".join(filter(None, parts))).strip(" ")


__all__ = ["Value", "attr_text", "const_text", "node_text", "quoted", "to_text"]
