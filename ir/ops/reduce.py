"""Reductions along one axis, top-k and prefix sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fretsaw.ir.attrs import int_of
from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, elements, per_operand, tensor
from fretsaw.ir.ops.shape import AXIS, axis_of
from fretsaw.ir.types import ITEMSIZE, TensorType, ValueType

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]
REDUCE = {"axis": AXIS, "keepdims": AttrSpec(bool, False)}


def _reduce_shape(types: Types, attrs: Attrs) -> Types:
    x = tensor(types[0], "x")
    axis = axis_of(attrs, x.rank)
    middle = (1,) if attrs.get("keepdims", False) else ()
    return [TensorType(x.dtype, (*x.shape[:axis], *middle, *x.shape[axis + 1 :]))]


def _define(name: str, fn: Callable[..., Array], doc: str) -> None:
    def reference(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
        out = fn(arrays[0], axis=attrs["axis"], keepdims=attrs.get("keepdims", False))
        return [np.asarray(out).astype(arrays[0].dtype)]

    define_op(
        name, "x", flops=per_operand(1), shape=_reduce_shape, reference=reference, attrs=REDUCE, doc=doc,
        rows="axis",
        example=f"{name}(%x) {{axis = 1, keepdims = true}}",
    )  # fmt: skip


_define("sum", np.sum, "Sum along an axis.")
_define("mean", np.mean, "Mean along an axis.")
_define("max", np.max, "Maximum along an axis.")


def _topk_shape(types: Types, attrs: Attrs) -> Types:
    x, k = tensor(types[0], "x"), attrs["k"]
    last = x.shape[-1]
    if not isinstance(k, int) or k < 1 or (isinstance(last, int) and k > last):
        raise ShapeError(f"k = {k} does not fit {x}", "x")
    shape = (*x.shape[:-1], k)
    return [TensorType(x.dtype, shape), TensorType("i64", shape)]


def top_k(x: Array, k: int) -> tuple[Array, Array]:
    """Largest k along the last axis, descending; ties go to the lowest index."""
    index = np.argsort(-x, axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(x, index, axis=-1), index.astype(np.int64)


def sorted_copies(operands: Sequence[ValueType], results: Sequence[ValueType], attrs: Attrs, item: int) -> int:
    """Bytes of sorted copies and 64-bit indices of all columns."""
    x = tensor(operands[0], "x")
    return 8 * elements(x) * max(item, ITEMSIZE[x.dtype])


define_op(
    "topk", "x", flops=per_operand(1), scratch=sorted_copies, shape=_topk_shape,
    attrs={"k": AttrSpec(int, required=True)},
    reference=lambda a, at: top_k(a[0], int_of(at, "k")),
    doc="Values and indices of the k largest along the last axis, descending, ties to the lowest index.",
    example="topk(%x) {k = 2}",
)  # fmt: skip


define_op(
    "cumsum", "x", flops=per_operand(1), shape=lambda ts, at: [tensor(ts[0], "x")], attrs={"axis": AXIS},
    rows="axis",
    reference=lambda a, at: [np.cumsum(a[0], axis=int_of(at, "axis"), dtype=a[0].dtype)],
    doc="Inclusive prefix sum along an axis.", example="cumsum(%x) {axis = 1}",
)  # fmt: skip
