"""How keys and values lie in the cache: the storage types, their sizes, and the NumPy reference of both directions.

    f32    4 bytes a number
    f16    2 bytes; rounded to nearest even, what is beyond the largest f16 becomes the largest
    int8   1 byte, and a f32 scale for each token of each head: its largest magnitude / 127

A key page holds the keys of P tokens transposed, [E, P], a value page the values [P, Ev]. An int8 page is a row of
bytes: the codes in that order, then the scales, f32 [P].

Why a scale for each token of each head: it is known when the token is appended, so a token is rounded once and from
nothing but itself. Scales over several tokens (for a channel of the keys, as in KIVI, arXiv:2402.02750) wait for those
tokens: what a token is rounded to would then depend on how the prompt was cut, and on what a rollback took back.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fretsaw.ir.planes import Plane
from fretsaw.ir.types import DType

KvType = Literal["f32", "f16", "int8"]
Array = NDArray[np.generic]
Floats = NDArray[np.float32]

F16_MAX = 65504.0
CODES = 127  # codes are -127 ... 127
# Below this the scale's reciprocal would overflow: such a token is stored as zeros.
SMALLEST = 1e-30
ELEMENT: dict[KvType, type[np.generic]] = {"f32": np.float32, "f16": np.float16, "int8": np.int8}
ELEMENT_DTYPE: dict[KvType, DType] = {"f32": "f32", "f16": "f16", "int8": "i8"}
_SCALE_BYTES: dict[KvType, int] = {"f32": 0, "f16": 0, "int8": 4}


def row_bytes(size: int, kv: KvType) -> int:
    """Bytes of one key or value of ``size`` numbers, with its scale."""
    return size * np.dtype(ELEMENT[kv]).itemsize + _SCALE_BYTES[kv]


def page_shapes(key: int, value: int, page: int, kv: KvType) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a key page and of a value page."""
    if kv == "int8":
        return (page * row_bytes(key, kv),), (page * row_bytes(value, kv),)
    return (key, page), (page, value)


def page_planes(key: int, value: int, page: int, kv: KvType) -> tuple[Plane, Plane]:
    """The planes of keys and of values."""
    keys, values = page_shapes(key, value, page, kv)
    return Plane("k_pages", ELEMENT_DTYPE[kv], keys), Plane("v_pages", ELEMENT_DTYPE[kv], values)


def quantize(x: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Codes [..., E] and scales [...] of vectors f32 [..., E]: an error of half a scale at most, and f32 rounding.

    A vector with NaN in it has scale NaN, so whoever reads it sees that.
    """
    largest = np.abs(x).max(-1)
    small = largest < SMALLEST
    scale = np.where(small, 0, largest / np.float32(CODES)).astype(np.float32)
    factor = np.where(small, 0, np.float32(CODES) / np.where(small, 1, largest)).astype(np.float32)
    return np.rint(np.nan_to_num(x * factor[..., None])).astype(np.int8), scale


def store_rows(x: Floats, kv: KvType, *, transpose: bool) -> Array:
    """One page that holds ``x`` f32 [P, E], as keys (``transpose``) or as values."""
    scales = b""
    codes: Array = x
    if kv == "f16":
        codes = np.clip(x, -F16_MAX, F16_MAX).astype(np.float16)
    elif kv == "int8":
        codes, scale = quantize(x)
        scales = scale.tobytes()
    laid = np.ascontiguousarray(codes.T if transpose else codes)
    return np.frombuffer(laid.tobytes() + scales, np.int8) if scales else laid


def read_rows(stored: Array, size: int, page: int, kv: KvType, *, transpose: bool) -> Floats:
    """The f32 [P, E] that a page stands for."""
    shape = (size, page) if transpose else (page, size)
    if kv != "int8":
        wide = stored.reshape(shape).astype(np.float32)
        return np.ascontiguousarray(wide.T if transpose else wide)
    codes = stored[: page * size].reshape(shape).astype(np.float32)
    scales = np.ascontiguousarray(stored[page * size :]).view(np.float32)
    return np.ascontiguousarray((codes.T if transpose else codes) * scales[:, None])
