"""Storage formats: how the numbers of a constant or of a KV cache are kept, beside the dtype that they compute as.

    f64 f32            as they are
    f16                2 bytes; to nearest even; a number beyond the largest f16 becomes the largest, with its sign
    bf16               2 bytes; to nearest even; a number beyond the largest bf16 becomes infinite
    int8               a byte a number, and for each vector along the last axis a f32 scale: its largest magnitude / 127
    i64 i32 i8 u8 bool integers of that dtype, as they are

A format is registered once (:func:`register`); text form, verifier, reference interpreter and passes know it then. A
backend has kernels for some formats and says which constant has another.

Why a scale for each vector in ``int8``: of a KV cache it is known when a token is appended, so a token is rounded once
and from nothing but itself. Scales over several tokens (for a channel of the keys, as in KIVI, arXiv:2402.02750) wait
for those tokens: what a token is rounded to would then depend on how the prompt was cut, and on what a rollback took
back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from fretsaw.ir.types import DTYPES, FLOATS, ITEMSIZE, DType, numpy_dtype

Array = NDArray[np.generic]
Floats = NDArray[np.float32]
Arrays = Mapping[str, Array]

F16_MAX = 65504.0
INT8_MAX = 127  # codes are -127 ... 127
SMALLEST = 1e-30  # below this the scale's reciprocal would overflow: such a vector is kept as zeros


@dataclass(frozen=True)
class Plane:
    """One array of a format: its name, the dtype of its elements, its shape."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * ITEMSIZE[self.dtype]


@dataclass(frozen=True)
class Format:
    """One way to keep numbers. Formats are equal when their names are.

    Args:
        name: As in the text form and on the command line.
        bits: Of one code, scales apart.
        group: Numbers along the last axis that share a scale; 0: all of them; 1: each stands for itself.
        planes: From the shape of the numbers to the arrays that hold them.
        encode: From f32 [...] to the planes by name; rounds. ``encode(decode(encode(x)))`` is ``encode(x)``, bit for
            bit. bf16 planes are arrays of uint16.
        decode: From the planes, and the shape of the numbers, to f32 [...]; exact.
        dtypes: Of the constants that it can hold.
    """

    name: str
    bits: int = field(compare=False)
    group: int = field(compare=False)
    planes: Callable[[tuple[int, ...]], tuple[Plane, ...]] = field(compare=False)
    encode: Callable[[Array], Arrays] = field(compare=False)
    decode: Callable[[Arrays, tuple[int, ...]], Array] = field(compare=False)
    dtypes: frozenset[DType] = field(default=FLOATS, compare=False)

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of all planes of numbers of ``shape``."""
        return sum(plane.nbytes for plane in self.planes(shape))

    def rounded(self, x: Array) -> Array:
        """The numbers that are left of ``x`` [...] after it was kept in this format, in the dtype of ``x``."""
        with np.errstate(over="ignore"):  # f64 beyond the largest f32, f32 beyond the largest f16: infinite
            return self.decode(self.encode(x), x.shape).astype(x.dtype, copy=False)


FORMATS: dict[str, Format] = {}  # by name, in the order of registration


def register(made: Format) -> Format:
    """Make a format known by its name.

    Raises:
        ValueError: the name is taken.
    """
    if made.name in FORMATS:
        raise ValueError(f"format {made.name} is registered twice")
    FORMATS[made.name] = made
    return made


def round_bf16(x: Array) -> NDArray[np.uint16]:
    """f32 rounded to bf16 (nearest, ties to even; NaN stays NaN), as its 16 bits."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + (((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(bits.view(np.float32)), quiet, rounded).astype(np.uint16).reshape(x.shape)


def widen_bf16(bits: Array) -> Floats:
    """The f32 values of bf16 bits, uint16."""
    return (np.asarray(bits, np.uint32) << np.uint32(16)).view(np.float32)


def round_f16(x: Array) -> NDArray[np.float16]:
    """f32 rounded to f16; what is beyond the largest becomes the largest."""
    return np.clip(np.asarray(x, np.float32), -F16_MAX, F16_MAX).astype(np.float16)


def quantize(x: Array) -> tuple[NDArray[np.int8], Floats]:
    """Codes int8 [..., E] and scales f32 [...] of vectors f32 [..., E].

    The error is half a scale at most, and f32 rounding. A vector with NaN or infinity in it has that scale, so whoever
    reads it sees it.
    """
    wide = np.asarray(x, np.float32)
    largest = np.abs(wide).max(-1, initial=0)
    small = largest < SMALLEST
    scale = np.where(small, 0, largest / np.float32(INT8_MAX)).astype(np.float32)
    factor = np.where(small, 0, np.float32(INT8_MAX) / np.where(small, 1, largest)).astype(np.float32)
    with np.errstate(invalid="ignore"):  # infinity times zero, in a vector that is infinite
        return np.rint(np.nan_to_num(wide * factor[..., None])).astype(np.int8), scale


def _plain(dtype: DType, encode: Callable[[Array], Array], decode: Callable[[Array], Array]) -> Format:
    """One plane, ``codes``, of the numbers' own shape."""
    return Format(
        dtype, 8 * ITEMSIZE[dtype], 1,
        planes=lambda shape: (Plane("codes", dtype, shape),),
        encode=lambda x: {"codes": encode(x)},
        decode=lambda planes, shape: decode(planes["codes"]),
        dtypes=FLOATS if dtype in FLOATS else frozenset([dtype]),
    )  # fmt: skip


def _as_is(dtype: DType) -> Format:
    def kept(x: Array) -> Array:
        return np.asarray(x, numpy_dtype(dtype))

    return _plain(dtype, kept, kept)


def _decode_int8(planes: Arrays, shape: tuple[int, ...]) -> Array:
    codes, scales = planes["codes"].astype(np.float32), planes["scales"].astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # of a vector that is infinite, or as large as f32 goes
        return np.asarray(codes * scales[..., None], np.float32).reshape(shape)


def _encode_int8(x: Array) -> Arrays:
    codes, scales = quantize(x)
    return {"codes": codes, "scales": scales}


for _dtype in DTYPES:
    if _dtype == "f16":
        register(_plain(_dtype, round_f16, lambda codes: codes.astype(np.float32)))
    elif _dtype == "bf16":
        register(_plain(_dtype, round_bf16, widen_bf16))
    else:
        register(_as_is(_dtype))
register(
    Format(
        "int8",
        8,
        0,
        planes=lambda shape: (Plane("codes", "i8", shape), Plane("scales", "f32", shape[:-1])),
        encode=_encode_int8,
        decode=_decode_int8,
    )  # fmt: skip
)
