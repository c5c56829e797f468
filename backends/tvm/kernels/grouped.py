"""Weights in integer codes: groups along k share a scale and a minimum, and a code c of a group means ``s * c + m``.

One buffer ``int32 [panels, K / group, group / per * 16 + 16]`` with ``per = 32 / bits`` codes in a word. For each group
of each panel of 16 columns come the words, ``per`` neighbouring k of a column in one, the least k in the lowest bits;
then 16 scales and 16 minima in f16. A tile reads it from end to end, and all that a group needs lies together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, bind, fma, load, loop, splat_int, vtype
from fretsaw.backends.tvm.kernels.isa import PANEL

Codes = NDArray[np.uint8]
Halves = NDArray[np.float16]
WORD = 32  # bits


@dataclass(frozen=True)
class Grouped:
    """How codes lie in words.

    Args:
        bits: 2, 4 or 8 a code.
        group: neighbouring k with one scale and one minimum, a multiple of 32 / bits.
    """

    bits: int
    group: int

    def __post_init__(self) -> None:
        if self.bits not in (2, 4, 8) or self.group <= 0 or self.group % self.per:
            raise ValueError(f"codes of {self.bits} bits in groups of {self.group} have no packing")

    @property
    def per(self) -> int:
        """Codes in a word."""
        return WORD // self.bits

    @property
    def words(self) -> int:
        """Words of codes in a group of a column."""
        return self.group // self.per

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
    full = np.zeros((*lead, panels * PANEL, k), np.uint32)
    full[..., :n, :] = codes
    shifts = np.arange(how.per, dtype=np.uint32) * np.uint32(how.bits)
    words = np.bitwise_or.reduce(full.reshape(*lead, panels * PANEL, k // how.per, how.per) << shifts, axis=-1)
    words = words.reshape(*lead, panels, PANEL, groups, how.words)
    out = np.zeros((*lead, panels, groups, stride), np.uint32)
    out[..., : how.words * PANEL] = np.moveaxis(words, -3, -1).reshape(*lead, panels, groups, -1)
    for at, plane in ((0, scales), (PANEL // 2, minima)):
        padded = np.zeros((*lead, panels * PANEL, groups), np.float16)
        padded[..., :n, :] = plane
        by_group = np.ascontiguousarray(np.swapaxes(padded.reshape(*lead, panels, PANEL, groups), -1, -2))
        begin = how.words * PANEL + at
        out[..., begin : begin + PANEL // 2] = by_group.view(np.uint32)
    return out.view(np.int32)


def unpack_codes(packed: NDArray[np.int32], n: int, how: Grouped) -> tuple[Codes, Halves, Halves]:
    """Codes, scales and minima of ``n`` columns, as ``pack_codes`` took them."""
    *lead, panels, groups, _ = packed.shape
    words, rest = np.split(packed.view(np.uint32), [how.words * PANEL], axis=-1)
    shifts = np.arange(how.per, dtype=np.uint32) * np.uint32(how.bits)
    codes = (words.reshape(*lead, panels, groups, how.words, PANEL, 1) >> shifts) & np.uint32(2**how.bits - 1)
    codes = np.moveaxis(codes, -2, -4).reshape(*lead, panels * PANEL, groups * how.group)[..., :n, :]
    halves = np.ascontiguousarray(rest).view(np.float16).reshape(*lead, panels, groups, 2, PANEL)
    scales, minima = (
        np.swapaxes(halves[..., i, :], -1, -2).reshape(*lead, panels * PANEL, groups)[..., :n, :] for i in (0, 1)
    )
    return codes.astype(np.uint8), scales, minima


def decode(codes: Codes, scales: Halves, minima: Halves, group: int) -> NDArray[np.float32]:
    """The f32 [..., N, K] that codes mean: one rounding of ``s * c + m``, as a fused multiply-add does it.

    A code of 8 bits times a scale of 11 has 19 bits, so the product alone is exact in f32.
    """
    wide = np.repeat(scales.astype(np.float32), group, axis=-1), np.repeat(minima.astype(np.float32), group, axis=-1)
    return codes.astype(np.float32) * wide[0] + wide[1]


@dataclass(frozen=True)
class GroupReader:
    """Emits the loads of one group: words, scales and minima of ``lanes`` columns of a panel.

    Args:
        buffer: The packed weights.
        lead: Indices in front of the panel, such as the expert.
    """

    how: Grouped
    buffer: Buffer
    lanes: int
    lead: tuple[Expr, ...] = ()

    def terms(self, panel: Expr, group: Expr, column: int) -> tuple[Expr, Expr]:
        """f32 vectors of scales and minima, to be used for the whole group."""
        begin = self.how.words * PANEL + column // 2
        return self._halves(panel, group, begin), self._halves(panel, group, begin + PANEL // 2)

    def _halves(self, panel: Expr, group: Expr, at: int) -> Expr:
        pairs = load(self.buffer, [*self.lead, panel, group, at], self.lanes // 2)
        return bind(tirx.Cast(vtype("float32", self.lanes), T.reinterpret(vtype("float16", self.lanes), pairs)))

    def words(self, panel: Expr, group: Expr, word: Expr, column: int) -> Expr:
        """Words of neighbouring columns, each with ``per`` codes."""
        return T.bind(load(self.buffer, [*self.lead, panel, group, word * PANEL + column], self.lanes))

    def weights(self, words: Expr, which: int, terms: tuple[Expr, Expr]) -> Expr:
        """f32 weights of code ``which`` of the words."""
        shifted = words >> splat_int(which * self.how.bits, self.lanes) if which else words
        code = shifted & splat_int(2**self.how.bits - 1, self.lanes)
        return fma(tirx.Cast(vtype("float32", self.lanes), code), *terms)

    def column(self, panel: Expr, lane: Expr, depth: int, put: Callable[[Expr, Expr], None]) -> None:
        """Decode one column from end to end, for a reader of one lane: ``put(k, weight)`` for each k."""
        how = self.how
        with loop(depth // how.group) as g:
            terms = tuple(bind(self._half(panel, g, at, lane)) for at in (0, PANEL // 2))
            with loop(how.words) as word:
                bits = bind(load(self.buffer, [*self.lead, panel, g, word * PANEL + lane]))
                for which in range(how.per):
                    put(g * how.group + word * how.per + which, bind(self.weights(bits, which, (terms[0], terms[1]))))

    def _half(self, panel: Expr, group: Expr, at: int, lane: Expr) -> Expr:
        pair = load(self.buffer, [*self.lead, panel, group, self.how.words * PANEL + at + lane // 2])
        word = T.reinterpret("uint32", pair) >> tirx.Cast("uint32", lane % 2 * 16)
        return tirx.Cast("float32", T.reinterpret("float16", tirx.Cast("uint16", word)))
