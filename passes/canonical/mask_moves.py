"""How ops that move elements change the axes of what `mask_values` reads: slices, reshapes, gathers, joins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from fretsaw.ir import DimLike, Node, Value
from fretsaw.passes.canonical.affine import Affine, axis, number
from fretsaw.passes.canonical.mask_meaning import Meaning, Unreadable, at

Read = Callable[[Value], Meaning]


def _slice(node: Node, read: Read) -> Meaning:
    along, start = node.int_attr("axis"), node.dim_attr("start")
    return at(read(node["x"]), {along: axis(along).times(node.int_attr("step")).plus(number(start))})


def _transpose(node: Node, read: Read) -> Meaning:
    perm = node.ints_attr("perm")
    return at(read(node["x"]), {p: axis(i) for i, p in enumerate(perm)})


def _expand(node: Node, read: Read) -> Meaning:
    shift = node.out.tensor.rank - node["x"].tensor.rank
    return at(read(node["x"]), {i: axis(i + shift) for i in range(node["x"].tensor.rank)})


def _reshape(node: Node, read: Read) -> Meaning:
    """Axes of length one come and go; anything else mixes axes."""
    old, new = node["x"].tensor.shape, node.out.tensor.shape
    wide = [[i for i, d in enumerate(shape) if d != 1] for shape in (old, new)]
    if [old[i] for i in wide[0]] != [new[i] for i in wide[1]]:
        raise Unreadable(f"reshape of {node['x'].tensor} to {node.out.tensor} mixes axes", node)
    return at(read(node["x"]), {i: axis(j) for i, j in zip(*wide, strict=True)})


def _index(read: Read, value: Value, node: Node) -> Affine:
    found = read(value)
    if not isinstance(found, Affine):
        raise Unreadable("an index is no affine form of the axes", node)
    return found


def _take(node: Node, read: Read) -> Meaning:
    shift = node["index"].tensor.rank - 1
    moved = {i: axis(i + shift) for i in range(1, node["x"].tensor.rank)}
    return at(read(node["x"]), {0: _index(read, node["index"], node), **moved})


def _gather(node: Node, read: Read) -> Meaning:
    return at(read(node["x"]), {node.int_attr("axis"): _index(read, node["index"], node)})


def _concat(node: Node, read: Read) -> Meaning:
    """One form for all parts, each read from its own start; a part of length one fits where its element does."""
    along, start = node.int_attr("axis"), cast(DimLike, 0)
    parts: list[tuple[DimLike, DimLike, Meaning]] = []
    for value in node.operands:
        length = value.tensor.shape[along]
        parts.append((start, length, at(read(value), {along: axis(along).plus(number(start), -1)})))
        start = start + length
    whole = next((m for _, length, m in parts if length != 1), parts[0][2])
    for first, length, meaning in parts:
        spot = {along: number(first)} if length == 1 else {}
        if at(whole, spot) != at(meaning, spot):
            raise Unreadable("concat joins parts that do not continue each other", node)
    return whole


def _cumsum(node: Node, read: Read) -> Meaning:
    found = read(node["x"])
    if not isinstance(found, Affine) or found.terms or not isinstance(found.const, int):
        raise Unreadable("cumsum of what is not the same everywhere", node)
    return axis(node.int_attr("axis")).plus(number(1)).times(found.const)


MOVES: Mapping[str, Callable[[Node, Read], Meaning]] = {
    "slice": _slice, "transpose": _transpose, "expand": _expand, "reshape": _reshape, "take": _take,
    "gather": _gather, "concat": _concat, "cumsum": _cumsum,
}  # fmt: skip
