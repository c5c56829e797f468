"""The line of a node with two lines either side and its culprit underlined: the context of an error.

  %n: f32[2, 8] = rms_norm(%x, %n.ones) {eps = 1e-05}
> %q: f32[2, 4] = linear(%n, %q.folded)
                             ^^^^^^^^^ const f32[4, 16]
"""

from __future__ import annotations

from dataclasses import replace

from fretsaw.ir.node import Graph, Loc, Node
from fretsaw.ir.op import get_op, has_op
from fretsaw.ir.printer import node_text

WIDTH = 160  # columns of a line before its end is cut
Span = tuple[int, int]


def place(node: Node) -> str:
    """Where a node is: its name, module path and source line, whichever it has."""
    name = f"%{node.results[0].name}" if node.results else node.op
    return "   ".join(filter(None, [name, node.loc.module, node.loc.source]))


def excerpt(
    graph: Graph,
    node: Node,
    *,
    slot: str | int | None = None,
    attr: str | None = None,
    result: int | None = None,
    note: str = "",
    around: int = 2,
) -> str:
    """Lines of ``graph`` around ``node``, its own marked with ``>`` and its culprit underlined.

    Args:
        slot: The culprit is this operand, by name or number; its type stands beside the carets.
        attr: The culprit is this attribute. One that the node has not: the op is underlined.
        result: The culprit is this result. With none of the three it is the op.
        note: Text beside the carets in place of the operand's type.
        around: Lines shown before and after.

    Returns:
        Lines with a gutter of two columns; a node that the graph has not stands alone. Broken nodes print too.
    """
    span, found = _culprit(graph, node, slot, attr, result)
    at = next((i for i, n in enumerate(graph.nodes) if n is node), None)
    near = graph.nodes[max(0, at - around) : at + around + 1] if at is not None else (node,)
    lines: list[str] = []
    for other in near:
        if other is not node:
            lines.append(f"  {_cut(_line(other), WIDTH)}")
            continue
        lines.append(f"> {_cut(_line(node), max(WIDTH, span[1]))}")
        tail = note or found
        lines.append(" " * (2 + span[0]) + "^" * max(1, span[1] - span[0]) + (f" {tail}" if tail else ""))
    return "\n".join(lines)


def _line(node: Node) -> str:
    return node_text(replace(node, loc=Loc()))


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 4] + " ..."


def _culprit(
    graph: Graph, node: Node, slot: str | int | None, attr: str | None, result: int | None
) -> tuple[Span, str]:
    """First and last column of the culprit, and what to say of it."""
    index = _slot_index(node, slot)
    if index is not None:
        value = node.operands[index]
        kind = "const " if value in graph.consts else ""
        return _operand_span(node, index), f"{kind}{value.type}"
    names = [name for name, _ in node.attrs]
    if attr in names:
        return _attr_span(node, names.index(attr)), ""
    if result is not None and result < len(node.results):
        return _result_span(node, result), ""
    start = len(_line(replace(node, operands=(), attrs=()))) - len(node.op) - 2
    return (start, start + len(node.op)), ""


def _slot_index(node: Node, slot: str | int | None) -> int | None:
    if isinstance(slot, str):
        names = get_op(node.op).slot_names(len(node.operands)) if has_op(node.op) else ()
        slot = names.index(slot) if slot in names else None
    return slot if slot is not None and slot < len(node.operands) else None


# Columns come from printing the line up to the culprit, so that they hold whatever the printer writes before it.


def _operand_span(node: Node, index: int) -> Span:
    ends = [len(_line(replace(node, operands=node.operands[:n], attrs=()))) - 1 for n in (index, index + 1)]
    return ends[0] + (2 if index else 0), ends[1]


def _attr_span(node: Node, index: int) -> Span:
    ends = [len(_line(replace(node, attrs=node.attrs[:n]))) - 1 for n in (index, index + 1)]
    return ends[0] + (2 if index else 3), ends[1]


def _result_span(node: Node, index: int) -> Span:
    bare = len(_line(replace(node, operands=(), attrs=(), results=())))
    ends = [len(_line(replace(node, operands=(), attrs=(), results=node.results[:n]))) for n in (index, index + 1)]
    return (ends[0] - bare - 1 if index else 0), ends[1] - bare - 3


__all__ = ["excerpt", "place"]
