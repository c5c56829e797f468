"""Rotary embedding by complex numbers: the oracle of whatever turns queries and keys."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def turned(x: Array, angle: Array, layout: str = "half") -> Array:
    """Pairs of x [..., E] times exp(i angle), angle [..., E / 2]: (i, i + E / 2), interleaved (2 i, 2 i + 1)."""
    half = x.shape[-1] // 2
    first, second = (x[..., :half], x[..., half:]) if layout == "half" else (x[..., 0::2], x[..., 1::2])
    z = (first + 1j * second) * np.exp(1j * angle)
    if layout == "half":
        joined: Array = np.concatenate([z.real, z.imag], axis=-1)
        return joined
    pairs: Array = np.stack([z.real, z.imag], axis=-1).reshape(x.shape)
    return pairs
