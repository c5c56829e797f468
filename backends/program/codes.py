"""Weights in integer codes: groups along k share a scale and a minimum, and a code c of a group means ``s * c + m``.

One buffer ``int32 [panels, K / group, group * bits / 32 * 16 + 16]``. For each group of each panel of 16 columns come
the words of codes, then 16 scales and 16 minima in f16. A word holds neighbouring k of one column, the least k in the
lowest bits; words of 16 columns lie side by side. Codes of 3 bits are cut into planes: all words with the two low bits
of the group, then those with the high bits. A tile reads the buffer from end to end, and all that a group needs lies
together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fretsaw.backends.program.pack import PANEL, WIDE

Codes = NDArray[np.uint8]
Halves = NDArray[np.float16]
WORD = 32  # bits
PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 8: (8,)}  # bits of a code -> bits of it in each plane, low ones first
STEP = 16  # most codes that are decoded in one iteration: more would only make the code longer


@dataclass(frozen=True)
class Grouped:
    """How codes lie in words.

    Args:
        bits: 1, 2, 3, 4 or 8 a code.
        group: neighbouring k with one scale and one minimum; they fill whole words.
    """

    bits: int
    group: int

    def __post_init__(self) -> None:
        planes = PLANES.get(self.bits, ())
        if not planes or self.group <= 0 or any(self.group * plane % WORD for plane in planes):
            raise ValueError(f"codes of {self.bits} bits in groups of {self.group} have no packing")

    @property
    def planes(self) -> tuple[int, ...]:
        """Bits of a code in each plane."""
        return PLANES[self.bits]

    @property
    def step(self) -> int:
        """Codes decoded in one iteration."""
        return min(STEP, WORD // self.planes[0])

    @property
    def words(self) -> int:
        """Words of codes in a group of a column."""
        return self.group * self.bits // WORD

    @property
    def stride(self) -> int:
        """Words in a group of a panel, scales and minima included."""
        return self.words * PANEL + PANEL

    def shape(self, panels: int, k: int) -> tuple[int, int, int]:
        """Of the buffer.

        Raises:
            ValueError: ``k`` is no multiple of the group.
        """
        if k % self.group:
            raise ValueError(f"{k} input features are no multiple of groups of {self.group}")
        return panels, k // self.group, self.stride


def pack_codes(codes: Codes, scales: Halves, minima: Halves, how: Grouped) -> NDArray[np.int32]:
    """Pack codes [..., N, K] with scales and minima [..., N, K / group]; columns beyond N decode to zero."""
    *lead, n, k = codes.shape
    panels = -(-n // PANEL)
    _, groups, stride = how.shape(panels, k)
    full = np.zeros((*lead, panels * PANEL, groups, how.group), np.uint32)
    full[..., :n, :, :] = codes.reshape(*lead, n, groups, how.group)
    out = np.zeros((*lead, panels, groups, stride), np.uint32)
    at = low = 0
    for bits in how.planes:
        words = how.group * bits // WORD
        part = (full >> np.uint32(low)) & np.uint32(2**bits - 1)
        shifts = np.arange(WORD // bits, dtype=np.uint32) * np.uint32(bits)
        packed = np.bitwise_or.reduce(part.reshape(*part.shape[:-1], words, WORD // bits) << shifts, axis=-1)
        packed = np.moveaxis(packed.reshape(*lead, panels, PANEL, groups, words), -3, -1)
        out[..., at : at + words * PANEL] = packed.reshape(*lead, panels, groups, -1)
        at, low = at + words * PANEL, low + bits
    for begin, plane in ((at, scales), (at + PANEL // 2, minima)):
        padded = np.zeros((*lead, panels * PANEL, groups), np.float16)
        padded[..., :n, :] = plane
        by_group = np.ascontiguousarray(np.swapaxes(padded.reshape(*lead, panels, PANEL, groups), -1, -2))
        out[..., begin : begin + PANEL // 2] = by_group.view(np.uint32)
    return out.view(np.int32)


def unpack_codes(packed: NDArray[np.int32], n: int, how: Grouped) -> tuple[Codes, Halves, Halves]:
    """Codes, scales and minima of ``n`` columns, as ``pack_codes`` took them."""
    *lead, panels, groups, _ = packed.shape
    stored, rest = np.split(packed.view(np.uint32), [how.words * PANEL], axis=-1)
    codes = np.zeros((*lead, panels * PANEL, groups, how.group), np.uint32)
    at = low = 0
    for bits in how.planes:
        words = how.group * bits // WORD
        part = stored[..., at : at + words * PANEL].reshape(*lead, panels, groups, words, PANEL, 1)
        shifts = np.arange(WORD // bits, dtype=np.uint32) * np.uint32(bits)
        spread = np.moveaxis((part >> shifts) & np.uint32(2**bits - 1), -2, -4)  # [.., panel, 16, group, word, code]
        codes |= spread.reshape(codes.shape) << np.uint32(low)
        at, low = at + words * PANEL, low + bits
    halves = np.ascontiguousarray(rest).view(np.float16).reshape(*lead, panels, groups, 2, PANEL)
    scales, minima = (
        np.swapaxes(halves[..., i, :], -1, -2).reshape(*lead, panels * PANEL, groups)[..., :n, :] for i in (0, 1)
    )
    flat = codes.reshape(*lead, panels * PANEL, groups * how.group)[..., :n, :]
    return flat.astype(np.uint8), scales, minima


def decode(codes: Codes, scales: Halves, minima: Halves, group: int) -> NDArray[np.float32]:
    """The f32 [..., N, K] that codes mean: one rounding of ``s * c + m``, as a fused multiply-add does it.

    A code of 8 bits times a scale of 11 has 19 bits, so the product alone is exact in f32.
    """
    wide = np.repeat(scales.astype(np.float32), group, axis=-1), np.repeat(minima.astype(np.float32), group, axis=-1)
    return codes.astype(np.float32) * wide[0] + wide[1]


def weight_storage(name: str) -> str | Grouped:
    """How kernels read weights that are stored as ``f32``, ``f16``, ``bf16``, or in codes such as ``u4_g32``."""
    return WIDE[name] if name in WIDE else grouped_storage(name)


def grouped_storage(name: str) -> Grouped:
    """How codes such as ``u4_g32`` lie in words."""
    bits, group = name.removeprefix("u").split("_g")
    return Grouped(int(bits), int(group))
