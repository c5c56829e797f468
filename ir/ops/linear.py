"""Dense products: linear, matmul, embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fretsaw.ir.op import Array, Attr, ShapeError, define_op, elements, no_flops, sizes, tensor
from fretsaw.ir.ops.elementwise import broadcast
from fretsaw.ir.types import INTS, TensorType, ValueType

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]


def _linear_shape(types: Types, attrs: Attrs) -> Types:
    x, w = tensor(types[0], "input"), tensor(types[1], "weight")
    if w.rank != 2:
        raise ShapeError(f"weight must be [O, I], is {w}", "weight")
    if x.shape[-1] != w.shape[1]:
        raise ShapeError(f"in-features differ: input has {x.shape[-1]}, weight has {w.shape[1]}", "weight")
    if x.dtype != w.dtype:
        raise ShapeError(f"dtypes differ: input {x.dtype}, weight {w.dtype}", "weight")
    if len(types) > 2 and tensor(types[2], "bias") != TensorType(x.dtype, (w.shape[0],)):
        raise ShapeError(f"bias must be {x.dtype}[{w.shape[0]}], is {types[2]}", "bias")
    return [TensorType(x.dtype, (*x.shape[:-1], w.shape[0]))]


def _linear(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    y = arrays[0] @ arrays[1].T  # [..., I] x [I, O]
    return [y + arrays[2] if len(arrays) > 2 else y]


def _linear_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """A multiply-add per input feature of each result element, and one for the bias."""
    bias = elements(results[0]) if len(operands) > 2 else 0
    return 2 * elements(operands[0]) * sizes(operands[1])[0] + bias


define_op(
    "linear", "input weight bias?", flops=_linear_flops, shape=_linear_shape, reference=_linear,
    weights=("weight",),
    doc="input @ weight.T + bias; weight is [O, I].", example="linear(%x, %w)",
)  # fmt: skip


def _matmul_shape(types: Types, attrs: Attrs) -> Types:
    a, b = tensor(types[0], "a"), tensor(types[1], "b")
    if a.rank < 2 or b.rank < 2 or a.shape[-1] != b.shape[-2] or a.dtype != b.dtype:
        raise ShapeError(f"cannot multiply {a} and {b}", "b")
    return [TensorType(a.dtype, (*broadcast([a.shape[:-2], b.shape[:-2]]), a.shape[-2], b.shape[-1]))]


def _matmul_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    return 2 * elements(results[0]) * sizes(operands[0])[-1]


define_op(
    "matmul", "a b", flops=_matmul_flops, shape=_matmul_shape, reference=lambda a, at: [np.matmul(a[0], a[1])],
    doc="Batched matrix product over the last two axes.", example="matmul(%a, %b)",
)  # fmt: skip


def _embedding_shape(types: Types, attrs: Attrs) -> Types:
    ids, table = tensor(types[0], "ids"), tensor(types[1], "table")
    if ids.dtype not in INTS or table.rank != 2:
        raise ShapeError(f"needs integer ids and a [V, D] table, got {ids} and {table}", "ids")
    return [TensorType(table.dtype, (*ids.shape, table.shape[1]))]


define_op(
    "embedding", "ids table", flops=no_flops, weights=("table",),
    shape=_embedding_shape, reference=lambda a, at: [a[1][a[0]]],
    doc="Rows of a [V, D] table.", example="embedding(%ids, %table)",
)  # fmt: skip
