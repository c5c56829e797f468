"""Weight packing: panels of 16 output columns, ``[ceil(N/16), K, 16]``, one format for every ISA and kernel.

GEMM and GEMV read a panel from end to end; an embedding gather reads one lane of it, so a tied embedding
and output head is stored once. f16 is stored as float16, bf16 as the upper half of the f32, in uint16.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fretsaw.backends.tvm.kernels.isa import PANEL
from fretsaw.ir.formats import round_bf16, widen_bf16

Array = NDArray[np.generic]

STORAGE = {"float32": "float32", "float16": "float16", "bfloat16": "uint16"}


def convert(w: Array, dtype: str) -> Array:
    """Return ``w`` rounded to a weight dtype, in its storage type."""
    if dtype == "bfloat16":
        return round_bf16(w)
    if dtype not in STORAGE:
        raise ValueError(f"weight dtype {dtype!r}: expected one of {', '.join(STORAGE)}")
    return w.astype(dtype)


def widen(stored: Array, dtype: str) -> NDArray[np.float32]:
    """Return stored weights as f32, exactly."""
    return widen_bf16(stored) if dtype == "bfloat16" else stored.astype(np.float32)


def pack_panels(w: Array, dtype: str = "float32") -> Array:
    """Pack ``w`` [..., N, K] into panels [..., ceil(N/16), K, 16]; missing columns are zero."""
    *lead, n, k = w.shape
    panels = -(-n // PANEL)
    padded = convert(w, dtype)
    if n % PANEL:
        full = np.zeros((*lead, panels * PANEL, k), padded.dtype)
        full[..., :n, :] = padded
        padded = full
    return np.ascontiguousarray(padded.reshape(*lead, panels, PANEL, k).swapaxes(-1, -2))


def unpack_panels(panels: Array, n: int) -> Array:
    """Return the [..., N, K] matrix that ``pack_panels`` packed, in its storage type."""
    *lead, count, k, width = panels.shape
    return np.ascontiguousarray(panels.swapaxes(-1, -2).reshape(*lead, count * width, k)[..., :n, :])


def pack_glu_panels(gate: Array, up: Array, dtype: str = "float32") -> Array:
    """Pack gate and up [..., F, K] into [..., ceil(F/8), K, 16]: 8 gate columns, then their 8 up columns.

    One register tile then holds both factors of the same features, so the product needs no second pass.
    """
    *lead, f, k = gate.shape
    groups = -(-f // 8)
    out = np.zeros((*lead, groups, 2, 8, k), convert(gate[..., :1, :1], dtype).dtype)
    for half, w in enumerate((gate, up)):
        full = np.zeros((*lead, groups * 8, k), out.dtype)
        full[..., :f, :] = convert(w, dtype)
        out[..., half, :, :] = full.reshape(*lead, groups, 8, k)
    return np.ascontiguousarray(out.reshape(*lead, groups, 16, k).swapaxes(-1, -2))
