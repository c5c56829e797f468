"""Elementwise ops. Operands broadcast by NumPy's rule, extended to symbolic dims (equal dims or 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np

from fretsaw.ir.dims import DimLike, Shape
from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, tensor
from fretsaw.ir.ops.special import erf, expit
from fretsaw.ir.traits import Legal
from fretsaw.ir.types import DTYPES, FLOATS, TensorType, ValueType, numpy_dtype

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The common shape, dims equal or 1, aligned at the end.

    Raises:
        ShapeError: two dims differ and neither is 1; the slot is the index of the offender.
    """
    rank = max(map(len, shapes))
    out: list[DimLike] = [1] * rank
    for slot, shape in enumerate(shapes):
        for axis, dim in enumerate(shape, rank - len(shape)):
            if out[axis] == 1:
                out[axis] = dim
            elif dim not in (1, out[axis]):
                raise ShapeError(f"dims differ: {dim} and {out[axis]}", slot)
    return tuple(out)


def _same(types: Types, attrs: Attrs, result: str | None = None) -> Types:
    ts = [tensor(t, f"operand {i}") for i, t in enumerate(types)]
    for i, t in enumerate(ts):
        if t.dtype != ts[0].dtype:
            raise ShapeError(f"dtypes differ: {ts[0].dtype} and {t.dtype}", i)
    shape = broadcast([t.shape for t in ts])
    return [TensorType(result or ts[0].dtype, shape)]  # type: ignore[arg-type]


def _float_only(types: Types, attrs: Attrs) -> Types:
    for i, t in enumerate(types):
        if tensor(t, f"operand {i}").dtype not in FLOATS:
            raise ShapeError(f"needs floats, got {t}", i)
    return _same(types, attrs)


def _compare(types: Types, attrs: Attrs) -> Types:
    return _same(types, attrs, "bool")


def _where(types: Types, attrs: Attrs) -> Types:
    cond = tensor(types[0], "cond")
    if cond.dtype != "bool":
        raise ShapeError(f"cond must be bool, is {cond.dtype}", "cond")
    (picked,) = _same(types[1:], attrs)
    assert isinstance(picked, TensorType)
    return [TensorType(picked.dtype, broadcast([cond.shape, picked.shape]))]


def _define(
    name: str, slots: str, fn: Callable[..., Array], doc: str, shape: Callable[[Types, Attrs], Types] = _same,
    legal: Legal = Legal(),
) -> None:  # fmt: skip
    def reference(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
        with np.errstate(all="ignore"):  # overflow to inf and NaN from inf - inf are IEEE results, not accidents
            out = fn(*arrays)
        keep = arrays[-1].dtype if shape is not _compare else np.dtype(np.bool_)
        return [np.asarray(out).astype(keep, copy=False)]

    operands = ", ".join(f"%{s}" for s in slots.split())
    define_op(
        name, slots, shape=shape, reference=reference, doc=doc, elementwise=True, legal=legal,
        example=f"{name}({operands})",
    )  # fmt: skip


def _raised(what: str, rule: str) -> Legal:
    """Of an op that is part of a larger one from the canonical phase on."""
    hint = f"`fretsaw explain CHECKPOINT {rule}` shows the nearest miss"
    return Legal(last="captured", why=f"left over from a {what} that no rule recognised", hint=hint)


ROTARY, NORMED = _raised("rotary embedding", "raise_rope"), _raised("normalization", "raise_rms_norm")


def _div(a: Array, b: Array) -> Array:
    out: Array = a // b if np.issubdtype(a.dtype, np.integer) else a / b
    return out


_define("add", "a b", np.add, "a + b; logical or on bool.")
_define("sub", "a b", np.subtract, "a - b.")
_define("mul", "a b", np.multiply, "a * b; logical and on bool.")
_define("div", "a b", _div, "a / b; floor division on integers.")
_define("mod", "a b", np.mod, "Remainder with the sign of b.")
_define("pow", "a b", np.power, "a to the power b.", _float_only)
_define("maximum", "a b", np.maximum, "Elementwise maximum, NaN propagates.")
_define("minimum", "a b", np.minimum, "Elementwise minimum, NaN propagates.")
_define("neg", "x", np.negative, "-x.")
_define("abs", "x", np.abs, "|x|.")
_define("exp", "x", np.exp, "e to the x.", _float_only)
_define("log", "x", np.log, "Natural logarithm.", _float_only)
_define("sqrt", "x", np.sqrt, "Square root.", _float_only)
_define("rsqrt", "x", lambda x: 1 / np.sqrt(x), "1 / sqrt(x).", _float_only, NORMED)
_define("reciprocal", "x", lambda x: 1 / x, "1 / x.", _float_only)
_define("erf", "x", erf, "Gauss error function.", _float_only)
_define("tanh", "x", np.tanh, "Hyperbolic tangent.", _float_only)
_define("sigmoid", "x", expit, "1 / (1 + exp(-x)).", _float_only)
_define("silu", "x", lambda x: x * expit(x), "x * sigmoid(x).", _float_only)
_define("relu", "x", lambda x: np.maximum(x, 0), "max(x, 0).")
_define("cos", "x", np.cos, "Cosine.", _float_only, ROTARY)
_define("sin", "x", np.sin, "Sine.", _float_only, ROTARY)
_define("eq", "a b", np.equal, "a == b.", _compare)
_define("ne", "a b", np.not_equal, "a != b.", _compare)
_define("lt", "a b", np.less, "a < b.", _compare)
_define("le", "a b", np.less_equal, "a <= b.", _compare)
_define("gt", "a b", np.greater, "a > b.", _compare)
_define("ge", "a b", np.greater_equal, "a >= b.", _compare)
_define("logical_not", "x", np.logical_not, "not x.", _compare)


def _pick(cond: Array, a: Array, b: Array) -> Array:
    return np.where(cond, a, b)


_define("where", "cond a b", _pick, "a where cond, else b.", _where)


def _gelu(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    (x,) = arrays
    if attrs.get("approximate", "none") == "tanh":
        inner = np.sqrt(2 / np.pi).astype(x.dtype) * (x + x.dtype.type(0.044715) * x**3)
        return [(0.5 * x * (1 + np.tanh(inner))).astype(x.dtype)]
    return [(0.5 * x * (1 + erf(x / np.sqrt(x.dtype.type(2))))).astype(x.dtype)]


define_op(
    "gelu", "x", shape=_float_only, reference=_gelu, elementwise=True,
    attrs={"approximate": AttrSpec(str, "none", choices=("none", "tanh"))},
    doc="Gaussian error linear unit, exact or by tanh (arXiv:1606.08415).",
    example='gelu(%x) {approximate = "tanh"}',
)  # fmt: skip


def _clamp(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    low, high = (cast("float | None", attrs.get(name)) for name in ("min", "max"))
    return [np.clip(arrays[0], low, high).astype(arrays[0].dtype)]


define_op(
    "clamp", "x", shape=_same, reference=_clamp, elementwise=True,
    attrs={"min": AttrSpec((float, int)), "max": AttrSpec((float, int))},
    doc="x limited to [min, max]; an absent bound does not limit.", example="clamp(%x) {max = 7.0}",
)  # fmt: skip


def _cast_shape(types: Types, attrs: Attrs) -> Types:
    return [TensorType(attrs["dtype"], tensor(types[0], "x").shape)]  # type: ignore[arg-type]


def _cast(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    dtype = attrs["dtype"]
    out = arrays[0].astype(numpy_dtype(dtype))  # type: ignore[arg-type]
    if dtype == "bf16":  # round to nearest even on the upper 16 bits
        bits = out.view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        out = np.where(np.isnan(out), out, rounded.view(np.float32))
    return [out]


define_op(
    "cast", "x", shape=_cast_shape, reference=_cast, elementwise=True, kind="layout",
    attrs={"dtype": AttrSpec(str, required=True, choices=DTYPES)},
    doc="Convert to another dtype, floats rounded to nearest even.", example='cast(%x) {dtype = "f32"}',
)  # fmt: skip
