"""Rotary position embedding (arXiv:2104.09864)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, elements, sizes, tensor
from fretsaw.ir.types import INTS, ValueType


def _rope_shape(types: Sequence[ValueType], attrs: Mapping[str, Attr]) -> Sequence[ValueType]:
    x, pos, freq = (tensor(t, s) for t, s in zip(types, ("x", "positions", "inv_freq"), strict=True))
    if x.rank < 2 or pos.shape != x.shape[:-2] or pos.dtype not in INTS:
        raise ShapeError(f"positions must be integers {list(map(str, x.shape[:-2]))}, are {pos}", "positions")
    half, head = freq.shape[-1] if freq.rank == 1 else 0, x.shape[-1]
    if not isinstance(half, int) or not isinstance(head, int) or half < 1 or 2 * half > head:
        raise ShapeError(f"inv_freq {freq} does not fit a head of {head}", "inv_freq")
    return [x]


def rotate(x: Array, cos: Array, sin: Array, layout: str) -> Array:
    """Rotate the first 2R features of x [..., E] by angles with cos, sin [..., R]."""
    r = cos.shape[-1]
    head, rest = x[..., : 2 * r], x[..., 2 * r :]
    if layout == "half":
        a, b = head[..., :r], head[..., r:]
        turned = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    else:
        a, b = head[..., 0::2], head[..., 1::2]
        turned = np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(head.shape)
    return np.concatenate([turned, rest], axis=-1)


def _rope(arrays: Sequence[Array], attrs: Mapping[str, Attr]) -> Sequence[Array]:
    x, pos, freq = arrays
    scale = x.dtype.type(attrs.get("scale", 1.0))
    angle = pos[..., None].astype(freq.dtype) * freq  # [..., R]
    cos, sin = (f(angle)[..., None, :].astype(x.dtype) * scale for f in (np.cos, np.sin))
    return [rotate(x, cos, sin, str(attrs.get("layout", "half")))]


def _rope_flops(operands: Sequence[ValueType], results: Sequence[ValueType], attrs: Mapping[str, Attr]) -> int:
    """Angle, cosine and sine once per position and frequency; a multiply and a multiply-add per turned feature."""
    x, positions, freq = operands
    turned = 2 * elements(freq) * elements(x) // sizes(x)[-1]
    return 3 * elements(positions) * elements(freq) + 3 * turned


define_op(
    "rope", "x positions inv_freq", flops=_rope_flops, shape=_rope_shape, reference=_rope,
    kind="attention", rows="each", indices={"positions": ""},
    attrs={"layout": AttrSpec(str, "half", choices=("half", "interleaved")), "scale": AttrSpec(float, 1.0)},
    doc="Rotate features of x [..., H, E] by positions [...] times inv_freq [R]; the first 2R of E turn, pairs "
    "(i, i+R) in layout half or (2i, 2i+1) in interleaved; cos and sin are multiplied by scale.",
    example='rope(%x, %positions, %inv_freq) {layout = "half"}',
)  # fmt: skip
