"""Constants: where their bytes are, not the bytes. Printing or rewriting a 70 B graph loads none of them.

A constant's data is a slice of a checkpoint file, an array in memory, or an op of the catalogue applied to other
constants (`concat` of three projections), computed only when somebody asks for it. Text read back without its data
holds a digest or a bare declaration instead.

How a constant is kept (its storage format, ``ir/formats.py``) is part of it, beside the dtype that it computes as. By
default it is the format of its data: a weight that a checkpoint has in bf16 computes as f32 and is kept as bf16, and so
is what ops that only move elements make of such weights. What arithmetic made is kept in its dtype.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fretsaw.ir.errors import VerifyError
from fretsaw.ir.formats import FORMATS
from fretsaw.ir.types import FLOATS, DType, TensorType, numpy_dtype

if TYPE_CHECKING:
    from fretsaw.ir.op import Attr

Array = np.ndarray
MOVES = frozenset(("cast", "concat", "slice", "reshape", "transpose", "take"))  # of weights: no arithmetic
NARROW = ("f16", "bf16")  # formats whose numbers all exist in f32 and f64


@dataclass(frozen=True)
class FileData:
    """``nbytes`` at ``offset`` of ``path``, little endian, row major, holding ``dtype``."""

    path: Path
    offset: int
    nbytes: int
    dtype: DType
    shape: tuple[int, ...]

    def load(self) -> Array:
        """The array, memory-mapped where the dtype allows it (bf16 is widened to float32)."""
        raw_dtype = np.dtype(np.uint16) if self.dtype == "bf16" else numpy_dtype(self.dtype)
        raw = np.memmap(self.path, mode="r", dtype=raw_dtype, offset=self.offset, shape=self.shape)
        if self.dtype == "bf16":
            return (np.asarray(raw, dtype=np.uint32) << 16).view(np.float32)
        return raw

    def __str__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        return f'file("{self.path.name}", {self.offset}, {self.nbytes}, {self.dtype}[{shape}])'


@dataclass(frozen=True, eq=False)
class ArrayData:
    """An array in memory. Two are equal when dtype, shape and bytes are."""

    array: Array

    def load(self) -> Array:
        return self.array

    @cached_property
    def digest(self) -> str:
        """SHA-256 over dtype, shape and bytes, first 16 hex digits."""
        head = f"{self.array.dtype.str}{self.array.shape}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.array).tobytes()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArrayData) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True)
class OpData:
    """Result ``result`` of catalogue op ``op`` on other constants, computed by its reference when loaded."""

    op: str
    operands: tuple[Const, ...]
    attrs: tuple[tuple[str, Attr], ...]
    result: int = 0

    def load(self) -> Array:
        from fretsaw.ir.op import get_op

        op, given = get_op(self.op), dict(self.attrs)
        attrs = {name: given.get(name, spec.default) for name, spec in op.attrs.items()}
        return op.reference([c.load() for c in self.operands], attrs)[self.result]


@dataclass(frozen=True)
class DigestData:
    """An array known only by its digest: what text read without its data holds."""

    digest: str

    def load(self) -> Array:
        raise VerifyError(
            f"the data of a constant is not here, only its digest {self.digest}",
            hint="pass consts= to parse(), or read the artifact's weights",
        )


@dataclass(frozen=True)
class DeclaredData:
    """A constant declared by name and type alone; with a seed it holds normal random values, for tests."""

    name: str
    type: TensorType
    seed: int | None = None

    def load(self) -> Array:
        if self.seed is None:
            raise VerifyError(
                f"constant %{self.name} was declared without data", hint="pass consts= or seed= to parse()"
            )
        words = np.frombuffer(hashlib.sha256(self.name.encode()).digest(), np.uint32)
        rng = np.random.default_rng([self.seed, *words.tolist()])
        return rng.standard_normal(self.type.shape).astype(numpy_dtype(self.type.dtype))  # type: ignore[arg-type]


ConstData = FileData | ArrayData | OpData | DigestData | DeclaredData


@dataclass(frozen=True)
class Const:
    """A typed constant.

    Args:
        type: Its shape, and the dtype that it computes as.
        source: Its name in the checkpoint, for people.
        format: How it is kept, the name of a format; empty: as its data is.
    """

    type: TensorType
    data: ConstData
    source: str = field(default="", compare=False)
    format: str = ""

    def __post_init__(self) -> None:
        if not self.format:
            object.__setattr__(self, "format", format_of(self.data, self.type))

    @property
    def is_exact(self) -> bool:
        """Whether the format is known to hold every number of the data, without loading it."""
        return self.format in (self.type.dtype, format_of(self.data, self.type))

    def load(self) -> Array:
        """The numbers that the format holds, shape as in ``type``, in the dtype of ``numpy_dtype(type.dtype)``.

        Raises:
            ValueError: the data does not have the shape that the type says.
        """
        array = np.asarray(self.data.load())
        if array.shape != self.type.shape:
            raise ValueError(f"constant {self.source or self.type}: data has shape {array.shape}")
        wide = array.astype(numpy_dtype(self.type.dtype), copy=False)
        return wide if self.is_exact else FORMATS[self.format].rounded(wide)

    @property
    def nbytes(self) -> int:
        """Bytes of the constant as it is kept."""
        return FORMATS[self.format].nbytes(tuple(int(d) for d in self.type.shape if isinstance(d, int)))

    @staticmethod
    def of(array: Array, dtype: DType | None = None, source: str = "") -> Const:
        """A constant holding ``array``."""
        found = dtype or _dtype_of(array)
        return Const(TensorType(found, tuple(array.shape)), ArrayData(array), source)


def format_of(data: ConstData, kind: TensorType) -> str:
    """The format that ``data`` of type ``kind`` has by itself: the narrowest that is known to hold every number of it.

    Vectors have their dtype's: what a narrower one would save is little, and kernels read them in f32.
    """
    if kind.dtype not in ("f32", "f64") or kind.rank < 2:
        return kind.dtype
    found: set[str] = set()
    if isinstance(data, FileData):
        found = {data.dtype}
    elif isinstance(data, OpData) and data.op in MOVES:
        found = {c.format for c in data.operands if c.type.dtype in FLOATS}
    (only,) = found if len(found) == 1 else (kind.dtype,)
    return only if only in NARROW else kind.dtype


def _dtype_of(array: Array) -> DType:
    names: Mapping[str, DType] = {
        "float64": "f64", "float32": "f32", "float16": "f16", "int64": "i64", "int32": "i32",
        "int8": "i8", "uint8": "u8", "bool": "bool",
    }  # fmt: skip
    return names[array.dtype.name]
