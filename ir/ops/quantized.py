"""Weights in integer codes. An op of constants: what a backend stores are its operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, elements, tensor
from fretsaw.ir.types import TensorType, ValueType

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]


def _dequantize_shape(types: Types, attrs: Attrs) -> Types:
    codes, scales, minima = (tensor(t, s) for t, s in zip(types, ("codes", "scales", "minima"), strict=True))
    bits, group = cast("int", attrs["bits"]), cast("int", attrs["group"])
    if codes.dtype != "u8" or not codes.is_static or not codes.rank:
        raise ShapeError(f"codes must be u8 of fixed shape, are {codes}", "codes")
    if not 1 <= bits <= 8:
        raise ShapeError(f"a code has 1 to 8 bits, not {bits}", attr="bits")
    *lead, k = cast("tuple[int, ...]", codes.shape)
    if group < 1 or k % group:
        raise ShapeError(f"{k} codes of a row are not groups of {group}", attr="group")
    for slot, kind in (("scales", scales), ("minima", minima)):
        if kind != TensorType("f16", (*lead, k // group)):
            raise ShapeError(f"{slot} must be f16[{', '.join(map(str, (*lead, k // group)))}], are {kind}", slot)
    return [TensorType("f32", codes.shape)]


def _dequantize(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    codes, scales, minima = arrays
    bits, group = cast("int", attrs["bits"]), cast("int", attrs["group"])
    if bits < 8 and codes.size and int(codes.max()) >> bits:
        raise ValueError(f"a code of {bits} bits is {int(codes.max())}")
    shape = (*codes.shape[:-1], codes.shape[-1] // group, group)
    # 8 bits times 11 are exact in f32, so there is one rounding, as of a fused multiply-add.
    wide = codes.reshape(shape).astype(np.float32) * scales.astype(np.float32)[..., None]
    return [(wide + minima.astype(np.float32)[..., None]).reshape(codes.shape)]


define_op(
    "dequantize", "codes scales minima", shape=_dequantize_shape, reference=_dequantize,
    attrs={"bits": AttrSpec(int, required=True), "group": AttrSpec(int, required=True)},
    flops=lambda operands, results, attrs: 2 * elements(results[0]),
    doc="codes * scale + minimum, with one scale and minimum for each `group` neighbours of the last axis.",
    example="dequantize(%codes, %scales, %minima) {bits = 4, group = 32}",
)  # fmt: skip
