"""How keys and values lie in the cache's pages, in each storage format (ir/formats.py), and the NumPy reference of both
directions.

A key page holds the keys of P tokens transposed, [E, P], a value page the values [P, Ev]. An int8 page is a row of
bytes: the codes in that order, then the scales, f32 [P].
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from fretsaw.ir import Graph, HandleType
from fretsaw.ir.errors import LoweringError
from fretsaw.ir.formats import FORMATS
from fretsaw.ir.types import numpy_dtype

KvType = Literal["f32", "f16", "int8"]  # formats that the kernels read and write
Array = NDArray[np.generic]
Floats = NDArray[np.float32]


def kv_format(graph: Graph) -> KvType:
    """The format in which the cache of ``graph`` is kept; f32 where it has none.

    Raises:
        LoweringError: no kernel reads that format.
    """
    found = next((v.type.format for v in graph.inputs if isinstance(v.type, HandleType)), "f32")
    if found not in get_args(KvType):
        raise LoweringError(f"the tvm backend has no kernels for a KV cache in {found}, only in "
                            f"{', '.join(get_args(KvType))}", where=graph.name)  # fmt: skip
    return cast("KvType", found)


def row_bytes(size: int, kv: KvType) -> int:
    """Bytes of one key or value of ``size`` numbers, with its scale."""
    return FORMATS[kv].nbytes((size,))


def page_shapes(key: int, value: int, page: int, kv: KvType) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a key page and of a value page."""
    if kv == "int8":
        return (page * row_bytes(key, kv),), (page * row_bytes(value, kv),)
    return (key, page), (page, value)


def store_rows(x: Floats, kv: KvType, *, transpose: bool) -> Array:
    """One page that holds ``x`` f32 [P, E], as keys (``transpose``) or as values."""
    planes = dict(FORMATS[kv].encode(x))
    codes = planes.pop("codes")
    laid = np.ascontiguousarray(codes.T if transpose else codes)
    scales = b"".join(plane.tobytes() for plane in planes.values())
    return np.frombuffer(laid.tobytes() + scales, np.int8) if scales else laid


def read_rows(stored: Array, size: int, page: int, kv: KvType, *, transpose: bool) -> Floats:
    """The f32 [P, E] that a page stands for."""
    raw, at, planes = stored.reshape(-1).view(np.uint8), 0, {}
    for plane in FORMATS[kv].planes((page, size)):
        end = at + plane.nbytes
        planes[plane.name] = np.ascontiguousarray(raw[at:end]).view(numpy_dtype(plane.dtype)).reshape(plane.shape)
        at = end
    if transpose:
        planes["codes"] = planes["codes"].reshape(size, page).T
    return np.ascontiguousarray(FORMATS[kv].decode(planes, (page, size)), np.float32)
