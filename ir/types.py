"""Types of values, and the licence: what a pass may assume about them.

Licence
    1. Values are immutable and never alias: a pass may reorder, duplicate or drop any node without effects.
    2. Ops with effects name their handle; their order on one handle is part of the program.
    3. Float arithmetic may be reassociated only by a pass of class ``algebra`` or ``budget``; ``bits`` may not.
    4. NaN and infinity propagate as in IEEE 754; a pass may not assume their absence.
    5. Graph outputs keep name, order, dtype and shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from fretsaw.ir.dims import DimLike, Shape, dim_text, evaluate, product

DType = Literal["f64", "f32", "f16", "bf16", "i64", "i32", "i8", "u8", "bool"]
DTYPES: tuple[DType, ...] = get_args(DType)
FLOATS: frozenset[DType] = frozenset(("f64", "f32", "f16", "bf16"))
INTS: frozenset[DType] = frozenset(("i64", "i32", "i8", "u8"))

ITEMSIZE: Mapping[DType, int] = {
    "f64": 8, "f32": 4, "f16": 2, "bf16": 2, "i64": 8, "i32": 4, "i8": 1, "u8": 1, "bool": 1,
}  # fmt: skip

# NumPy has no bfloat16: the reference computes in f32 and rounds where a value is stored as bf16.
_NUMPY: Mapping[DType, type[np.generic]] = {
    "f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": np.float32, "i64": np.int64,
    "i32": np.int32, "i8": np.int8, "u8": np.uint8, "bool": np.bool_,
}  # fmt: skip


def numpy_dtype(dtype: DType) -> np.dtype[np.generic]:
    """The NumPy dtype in which the reference interpreter holds values of ``dtype`` (bf16 is held as float32)."""
    return np.dtype(_NUMPY[dtype])


@dataclass(frozen=True)
class TensorType:
    """A dense tensor: dtype and a shape of ints and symbolic dims. No unknown rank, no -1."""

    dtype: DType
    shape: Shape = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def numel(self) -> DimLike:
        return product(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)

    def nbytes(self, env: Mapping[str, int] | None = None) -> int:
        """Size in bytes with symbols bound by ``env``."""
        return evaluate(self.numel, env or {}) * ITEMSIZE[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(dim_text, self.shape))}]"


@dataclass(frozen=True)
class HandleType:
    """An opaque object that effectful ops read and change, e.g. ``kv_cache``.

    Args:
        format: How it keeps the numbers that ops put into it (``ir/formats.py``).
    """

    kind: str
    format: str = "f32"

    def __str__(self) -> str:
        return f"handle<{self.kind}>" if self.format == "f32" else f"handle<{self.kind}, {self.format}>"


ValueType = TensorType | HandleType
