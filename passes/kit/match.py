"""Small questions that rules ask about values: scalar constants, operands in either order, last axes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fretsaw.ir import ArrayData, Const, DimLike, Graph, Node, OpData, TensorType, Value
from fretsaw.passes.kit.edit import Edit


def scalar(graph: Graph, value: Value) -> float | None:
    """The number that ``value`` holds everywhere, when it is a constant in memory with one repeated element.

    A 32-bit float gives the shortest decimal that rounds to it, so 1e-05 stays 1e-05 as an attribute.
    """
    const = graph.consts.get(value)
    if const is None or not isinstance(const.data, ArrayData) or const.data.array.size == 0:
        return None
    array = const.load()
    first = array.flat[0]
    if array.size > 1 and not (array == first).all():
        return None
    return float(str(first)) if isinstance(first, np.floating) else float(first)


def is_scalar(graph: Graph, value: Value, number: float) -> bool:
    return scalar(graph, value) == number


def either(node: Node) -> Iterator[tuple[Value, Value]]:
    """Both orders of the operands of a commutative binary node."""
    a, b = node.operands
    yield a, b
    yield b, a


def made_by(graph: Graph, value: Value, *ops: str) -> Node | None:
    """The producer of ``value`` when it is one of ``ops``."""
    node = graph.producer(value)
    return node if node is not None and node.op in ops else None


def last_axis(value: Value) -> int:
    return value.tensor.rank - 1


def shape_of(value: Value) -> tuple[DimLike, ...]:
    return value.tensor.shape


def squeezed(type: TensorType) -> tuple[DimLike, ...]:
    """The shape without axes of length one."""
    return tuple(d for d in type.shape if d != 1)


def flat_const(edit: Edit, graph: Graph, value: Value) -> Value:
    """The constant ``value`` with one axis; itself when it has one."""
    const = graph.consts[value]
    size = const.type.numel
    if const.type.rank == 1 or not isinstance(size, int):
        return value
    if isinstance(const.data, ArrayData):
        return edit.const(f"{value.name}.flat", Const.of(const.load().reshape(size), const.type.dtype))
    data = OpData("reshape", (const,), (("shape", (size,)),))
    return edit.const(f"{value.name}.flat", Const(TensorType(const.type.dtype, (size,)), data))


def narrow_reason(const: Const) -> str:
    """Why a weight may not be multiplied: its storage format would not hold the products. Empty where it may."""
    if const.format == const.type.dtype:
        return ""
    return f"the weight is kept as {const.format}, which does not hold products; it would take {const.type.dtype}"
