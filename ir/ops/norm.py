"""Normalizations over the last axis, and softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fretsaw.ir.op import Array, Attr, AttrSpec, Flops, ShapeError, define_op, elements, per_operand, tensor
from fretsaw.ir.ops.shape import AXIS, axis_of
from fretsaw.ir.types import FLOATS, TensorType, ValueType

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]
EPS = {"eps": AttrSpec(float, required=True)}


def _norm_shape(types: Types, attrs: Attrs) -> Types:
    x = tensor(types[0], "x")
    if x.dtype not in FLOATS or x.rank < 1:
        raise ShapeError(f"needs a float tensor, got {x}", "x")
    for slot, t in zip(("gain", "bias"), types[1:], strict=False):
        if t != TensorType(x.dtype, (x.shape[-1],)):
            raise ShapeError(f"{slot} must be {x.dtype}[{x.shape[-1]}], is {t}", slot)
    return [x]


def _rms_norm(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = arrays[0]
    mean = np.mean(np.square(x), axis=-1, keepdims=True, dtype=x.dtype)
    y = x / np.sqrt(mean + x.dtype.type(attrs["eps"]))
    return [y * arrays[1] if len(arrays) > 1 else y]


def _layer_norm(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x = arrays[0]
    centred = x - np.mean(x, axis=-1, keepdims=True, dtype=x.dtype)
    y = _rms_norm([centred], attrs)[0]
    y = y * arrays[1] if len(arrays) > 1 else y
    return [y + arrays[2] if len(arrays) > 2 else y]


def _norm_flops(own: int) -> Flops:
    """``own`` per element, and one for the gain and one for the bias where they are given."""
    return lambda operands, results, attrs: (own + len(operands) - 1) * elements(operands[0])


define_op(
    "rms_norm", "x gain?", flops=_norm_flops(3), shape=_norm_shape, reference=_rms_norm, attrs=EPS,
    kind="norm", rows="each",
    doc="x / sqrt(mean(x^2) + eps) * gain over the last axis (arXiv:1910.07467).",
    example="rms_norm(%x, %gain) {eps = 1e-05}",
)  # fmt: skip
define_op(
    "layer_norm", "x gain? bias?", flops=_norm_flops(5), shape=_norm_shape, reference=_layer_norm, attrs=EPS,
    kind="norm", rows="each",
    doc="(x - mean) / sqrt(var + eps) * gain + bias over the last axis (arXiv:1607.06450).",
    example="layer_norm(%x, %gain, %bias) {eps = 1e-05}",
)  # fmt: skip


def _softmax_shape(types: Types, attrs: Attrs) -> Types:
    x = tensor(types[0], "x")
    axis_of(attrs, x.rank)
    return [x]


def softmax(x: Array, axis: int) -> Array:
    """Softmax along ``axis``; a row of only -inf gives zeros, not NaN."""
    top = np.max(x, axis=axis, keepdims=True)
    e = np.exp(x - np.where(np.isneginf(top), 0, top))
    total = e.sum(axis=axis, keepdims=True, dtype=x.dtype)
    out: Array = e / np.where(total == 0, 1, total)
    return out


define_op(
    "softmax", "x", flops=per_operand(4), shape=_softmax_shape, attrs={"axis": AXIS}, rows="axis",
    reference=lambda a, at: [softmax(a[0], at["axis"])],
    doc="exp(x - max) / sum along an axis; a row of only -inf gives zeros.",
    example="softmax(%x) {axis = 1}",
)  # fmt: skip
