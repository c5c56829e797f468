"""Text form of a graph; ``ir/parser.py`` describes it and reads it back. Broken graphs print too."""

from __future__ import annotations

from fretsaw.ir.consts import ArrayData, Const, DeclaredData, DigestData, FileData, OpData
from fretsaw.ir.dims import Dim
from fretsaw.ir.node import Graph, Loc, Node, Value
from fretsaw.ir.op import Attr

MAX_INLINE = 8  # elements; larger arrays print as a digest


def to_text(graph: Graph) -> str:
    """The whole graph as text, no trailing newline."""
    inputs = ", ".join(map(str, graph.inputs))
    outputs = ", ".join(f"%{v.name}" for v in graph.outputs)
    lines = [f"graph @{graph.name}({inputs}) -> ({outputs}) {{"]
    lines += [f"  phase {graph.phase}"] if graph.phase != "captured" else []
    lines += [f"  dim {name} in [{low}, {high}]" for name, (low, high) in graph.dims.items()]
    lines += [f"  const {value}{_const_tail(value, const)}" for value, const in graph.consts.items()]
    lines += [f"  {node_text(node)}" for node in graph.nodes]
    return "\n".join([*lines, "}"])


def _const_tail(value: Value, const: Const) -> str:
    data = const.data
    return "" if isinstance(data, DeclaredData) and data.name == value.name else f" = {const_text(const)}"


def const_text(const: Const) -> str:
    """Where a constant's data is: ``file(...)``, ``data(...)``, ``declared(...)`` or an op on other constants."""
    data = const.data
    if isinstance(data, DigestData):
        return f'data(sha256 "{data.digest}")'
    if isinstance(data, DeclaredData):
        return f'declared("{data.name}")'
    if isinstance(data, FileData):
        return str(data)
    if isinstance(data, ArrayData):
        if data.array.size <= MAX_INLINE:
            return f"data([{', '.join(attr_text(x) for x in data.array.ravel().tolist())}])"
        return f'data(sha256 "{data.digest}")'
    assert isinstance(data, OpData)
    inner = ", ".join(f"({c.type} {const_text(c)})" for c in data.operands)
    return f"{data.op}({inner}){attrs_text(data.attrs)}" + (f" #{data.result}" if data.result else "")


def node_text(node: Node) -> str:
    """One line: results, op, operands, attributes, location."""
    results = ", ".join(map(str, node.results))
    operands = ", ".join(f"%{v.name}" for v in node.operands)
    left = f"{results} = " if results else ""
    return f"{left}{node.op}({operands}){attrs_text(node.attrs)}{_loc_text(node.loc)}"


def attrs_text(attrs: tuple[tuple[str, Attr], ...]) -> str:
    return f" {{{', '.join(f'{k} = {attr_text(v)}' for k, v in attrs)}}}" if attrs else ""


def attr_text(value: Attr) -> str:
    """A value as text: floats round-trip exactly, strings are quoted, tuples in brackets."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(attr_text, value))}]"
    assert isinstance(value, (int, Dim))
    return str(value)


def _loc_text(loc: Loc) -> str:
    parts = [loc.module]
    if loc.source:
        parts.append(f"({loc.source})")
    if loc.rules:
        parts.append(f"<{', '.join(loc.rules)}>")
    text = " ".join(filter(None, parts))
    return f"  // {text}" if text else ""


def context_lines(graph: Graph, node: Node, around: int = 2) -> str:
    """The node's line marked with ``>``, with its neighbours."""
    at = next((i for i, n in enumerate(graph.nodes) if n is node), None)
    if at is None:
        return f"> {node_text(node)}"
    lines = []
    for i in range(max(0, at - around), min(len(graph.nodes), at + around + 1)):
        lines.append(f"{'>' if i == at else ' '} {node_text(graph.nodes[i])}")
    return "\n".join(lines)


__all__ = ["Value", "attr_text", "const_text", "context_lines", "node_text", "to_text"]
