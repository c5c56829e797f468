"""Ops that move elements and make none: reshape, transpose, slices, gathers, ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from fretsaw.ir.attrs import dim_of, int_of, shape_of
from fretsaw.ir.dims import DimLike
from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, no_flops, tensor
from fretsaw.ir.ops.elementwise import broadcast
from fretsaw.ir.types import DTYPES, INTS, TensorType, ValueType, numpy_dtype

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]
AXIS = AttrSpec(int, required=True)
SHAPE = AttrSpec(tuple, required=True)
NUMBERS = tuple(d for d in DTYPES if d != "bool")


def axis_of(attrs: Attrs, rank: int) -> int:
    """The ``axis`` attribute, checked to be in ``[0, rank)``."""
    axis = attrs["axis"]
    if not isinstance(axis, int) or not 0 <= axis < rank:
        raise ShapeError(f"axis {axis} is outside rank {rank}")
    return axis


def _ints(value: Attr) -> tuple[int, ...]:
    return cast("tuple[int, ...]", value)


def _reshape_shape(types: Types, attrs: Attrs) -> Types:
    x = tensor(types[0], "x")
    out = TensorType(x.dtype, shape_of(attrs, "shape"))
    if x.numel != out.numel:
        raise ShapeError(f"element counts differ: {x.numel} and {out.numel}", "x")
    return [out]


define_op(
    "reshape", "x", kind="layout", view=True,
    flops=no_flops, shape=_reshape_shape, attrs={"shape": SHAPE},
    reference=lambda a, at: [a[0].reshape(_ints(at["shape"]))],
    doc="Same elements in row-major order under another shape.", example="reshape(%x) {shape = [B*S, 8]}",
)  # fmt: skip


def _transpose_shape(types: Types, attrs: Attrs) -> Types:
    x, perm = tensor(types[0], "x"), _ints(attrs["perm"])
    if sorted(perm) != list(range(x.rank)):
        raise ShapeError(f"perm {list(perm)} is no permutation of {x.rank} axes", "x")
    return [TensorType(x.dtype, tuple(x.shape[p] for p in perm))]


define_op(
    "transpose", "x", kind="layout", view=True,
    flops=no_flops, shape=_transpose_shape, attrs={"perm": AttrSpec(tuple, required=True)},
    reference=lambda a, at: [a[0].transpose(_ints(at["perm"]))],
    doc="Axis i of the result is axis perm[i] of x.", example="transpose(%x) {perm = [0, 2, 1, 3]}",
)  # fmt: skip


def _expand_shape(types: Types, attrs: Attrs) -> Types:
    x, shape = tensor(types[0], "x"), shape_of(attrs, "shape")
    if len(shape) < x.rank or broadcast([x.shape, shape]) != shape:
        raise ShapeError(f"{x} does not broadcast to {list(map(str, shape))}", "x")
    return [TensorType(x.dtype, shape)]


define_op(
    "expand", "x", kind="layout", view=True,
    flops=no_flops, shape=_expand_shape, attrs={"shape": SHAPE},
    reference=lambda a, at: [np.broadcast_to(a[0], _ints(at["shape"]))],
    doc="Broadcast x to a shape.", example="expand(%x) {shape = [B, S, 8]}",
)  # fmt: skip


def _slice_bounds(dim: DimLike, attrs: Attrs) -> tuple[DimLike, DimLike, int]:
    start, end, step = dim_of(attrs, "start"), dim_of(attrs, "end"), int_of(attrs, "step", 1)
    if step < 1:
        raise ShapeError(f"step must be positive, is {step}", "x")
    if isinstance(dim, int) and isinstance(start, int) and isinstance(end, int) and not 0 <= start <= end <= dim:
        raise ShapeError(f"slice {start}:{end} leaves dim {dim}", "x")
    return start, end, step


def _slice_shape(types: Types, attrs: Attrs) -> Types:
    x = tensor(types[0], "x")
    axis = axis_of(attrs, x.rank)
    start, end, step = _slice_bounds(x.shape[axis], attrs)
    length = end - start
    if step != 1:
        if not isinstance(length, int):
            raise ShapeError(f"a strided slice needs a fixed length, has {length}", "x")
        length = -(-length // step)
    return [TensorType(x.dtype, (*x.shape[:axis], length, *x.shape[axis + 1 :]))]


def _slice(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    index = [slice(None)] * arrays[0].ndim
    index[int_of(attrs, "axis")] = slice(attrs["start"], attrs["end"], attrs.get("step", 1))
    return [arrays[0][tuple(index)]]


define_op(
    "slice", "x", kind="layout", rows="axis", view=True,
    flops=no_flops, shape=_slice_shape, reference=_slice,
    attrs={"axis": AXIS, "start": AttrSpec(int, required=True), "end": AttrSpec(int, required=True),
           "step": AttrSpec(int, 1)},
    doc="Elements start, start+step, ... below end along an axis. Bounds are in range, never negative.",
    example="slice(%x) {axis = 1, start = 0, end = 4}",
)  # fmt: skip


def _concat_shape(types: Types, attrs: Attrs) -> Types:
    first = tensor(types[0], "xs0")
    axis = axis_of(attrs, first.rank)
    total: DimLike = 0
    for i, t in enumerate(types):
        x = tensor(t, f"xs{i}")
        rest = (*x.shape[:axis], *x.shape[axis + 1 :])
        if x.dtype != first.dtype or rest != (*first.shape[:axis], *first.shape[axis + 1 :]):
            raise ShapeError(f"cannot join {x} to {first} along axis {axis}", i)
        total = total + x.shape[axis]
    return [TensorType(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))]


define_op(
    "concat", "xs*", kind="layout", rows="axis",
    flops=no_flops, shape=_concat_shape, attrs={"axis": AXIS},
    reference=lambda a, at: [np.concatenate(a, axis=int_of(at, "axis"))],
    doc="Join along an axis.", example="concat(%a, %b) {axis = 0}",
)  # fmt: skip


def _gather_shape(types: Types, attrs: Attrs) -> Types:
    x, index = tensor(types[0], "x"), tensor(types[1], "index")
    axis = axis_of(attrs, x.rank)
    if index.rank != x.rank or index.dtype not in INTS:
        raise ShapeError(f"index must be integers of rank {x.rank}, is {index}", "index")
    if any(i not in (d, 1) for a, (i, d) in enumerate(zip(index.shape, x.shape, strict=True)) if a != axis):
        raise ShapeError(f"index {index} does not match {x} outside axis {axis}", "index")
    return [TensorType(x.dtype, index.shape)]


define_op(
    "gather", "x index", kind="index", rows="axis", indices={"index": ""},
    flops=no_flops, shape=_gather_shape, attrs={"axis": AXIS},
    reference=lambda a, at: [np.take_along_axis(a[0], a[1], axis=int_of(at, "axis"))],
    doc="Pick along an axis with an index of the same rank (torch.gather).",
    example="gather(%x, %index) {axis = 1}",
)  # fmt: skip


def _scatter_shape(types: Types, attrs: Attrs) -> Types:
    x, index, src = (tensor(t, s) for t, s in zip(types, ("x", "index", "src"), strict=True))
    axis_of(attrs, x.rank)
    if index.shape != src.shape or x.dtype != src.dtype:
        raise ShapeError(f"src {src} does not match index {index} and x {x}", "src")
    return [x]


def _scatter(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    out = np.array(arrays[0])
    np.put_along_axis(out, arrays[1], arrays[2], axis=int_of(attrs, "axis"))
    return [out]


define_op(
    "scatter", "x index src", kind="index", rows="axis", indices={"index": ""},
    flops=no_flops, shape=_scatter_shape, attrs={"axis": AXIS}, reference=_scatter,
    doc="x with src written at index along an axis (torch.scatter); indices along a row are distinct.",
    example="scatter(%x, %index, %src) {axis = 1}",
)  # fmt: skip


def _take_shape(types: Types, attrs: Attrs) -> Types:
    x, index = tensor(types[0], "x"), tensor(types[1], "index")
    if index.dtype not in INTS:
        raise ShapeError(f"index must be integers, is {index}", "index")
    return [TensorType(x.dtype, (*index.shape, *x.shape[1:]))]


define_op(
    "take", "x index", kind="index", indices={"index": "x"},
    flops=no_flops, shape=_take_shape, reference=lambda a, at: [a[0][a[1]]],
    doc="Rows x[index] (torch.index_select along axis 0, any index shape).", example="take(%x, %index)",
)  # fmt: skip


def _iota(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    return [np.arange(int_of(attrs, "size"), dtype=numpy_dtype(attrs["dtype"]))]  # type: ignore[arg-type]


define_op(
    "iota", "", kind="source",
    flops=no_flops, reference=_iota,
    shape=lambda ts, at: [TensorType(at["dtype"], (at["size"],))],  # type: ignore[arg-type]
    attrs={"size": AttrSpec(int, required=True), "dtype": AttrSpec(str, "i64", choices=NUMBERS)},
    doc="0, 1, ..., size - 1.", example='iota() {dtype = "i64", size = S}',
)  # fmt: skip


def _full(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    return [np.full(_ints(attrs["shape"]), attrs["value"], numpy_dtype(attrs["dtype"]))]  # type: ignore[arg-type]


define_op(
    "full", "", kind="source",
    flops=no_flops, reference=_full,
    shape=lambda ts, at: [TensorType(at["dtype"], at["shape"])],  # type: ignore[arg-type]
    attrs={"shape": SHAPE, "value": AttrSpec((float, int, bool), required=True),
           "dtype": AttrSpec(str, "f32", choices=DTYPES)},
    doc="A tensor filled with one value.", example='full() {dtype = "f32", shape = [B, 1], value = 1.0}',
)  # fmt: skip
