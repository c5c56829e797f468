"""Planes of a KV cache: arrays of which every page has one, keys and values among them.

A program takes them as arguments in the order of its manifest, each as [pages, shape...]. The runtime allocates them,
fills pages that are handed out, and copies pages before they are written; it knows none by name (docs/artifact.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod
from typing import Literal

import numpy as np

from fretsaw.ir.types import INTS, ITEMSIZE, DType, numpy_dtype

PLANE_DTYPES: tuple[DType, ...] = ("f32", "f16", "bf16", "i8", "i32", "i64")
Copy = Literal["page", "fill"]


@dataclass(frozen=True)
class Plane:
    """One array of a page.

    Args:
        name: Unique in a cache; the name of the kernels' argument.
        dtype: One of :data:`PLANE_DTYPES`.
        shape: Of one page.
        fill: What every element of a new page is; None: the program writes what it reads.
        copy: What a copy of a page has here: the same contents (``page``), or the fill.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    fill: int | float | None = None
    copy: Copy = "page"

    @property
    def page_bytes(self) -> int:
        return prod(self.shape) * ITEMSIZE[self.dtype]

    def described(self) -> dict[str, object]:
        """Its entry of the manifest's ``kv.planes``."""
        entry: dict[str, object] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        if self.fill is not None:
            entry["fill"] = self.fill
        if self.copy != "page":
            entry["copy"] = self.copy
        return entry

    @staticmethod
    def of(entry: Mapping[str, object]) -> Plane:
        """The plane that an entry of a valid manifest describes."""
        name, dtype, shape = entry["name"], entry["dtype"], entry["shape"]
        fill, copy = entry.get("fill"), entry.get("copy", "page")
        assert isinstance(name, str) and isinstance(shape, list) and isinstance(fill, int | float | None)
        known = next(d for d in PLANE_DTYPES if d == dtype)
        return Plane(name, known, tuple(shape), fill, "page" if copy == "page" else "fill")


def has_value(dtype: DType, value: int | float) -> bool:
    """Whether an element of ``dtype`` can be exactly ``value``."""
    if dtype in INTS:
        limit = 1 << (8 * ITEMSIZE[dtype] - 1)
        return isinstance(value, int) and -limit <= value < limit
    try:
        wide = float(value)
    except OverflowError:  # a whole number over every float
        return False
    if not isfinite(wide):
        return False
    with np.errstate(over="ignore"):
        narrow = numpy_dtype(dtype).type(wide)
    if dtype == "bf16":  # held as f32: the low half has to be empty
        narrow = (np.float32(narrow).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return float(narrow) == wide
