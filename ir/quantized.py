"""Constants in integer codes: found, made and counted."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from fretsaw.ir.consts import Const, OpData
from fretsaw.ir.types import TensorType

OP = "dequantize"


@dataclass(frozen=True)
class Coded:
    """The parts of a constant in codes: u8 [.., N, K], f16 [.., N, K / group] twice."""

    codes: Const
    scales: Const
    minima: Const
    bits: int
    group: int

    @property
    def format(self) -> str:
        """Its name, such as ``u4_g32``."""
        return format_name(self.bits, self.group)

    @property
    def nbytes(self) -> int:
        """Bytes as stored: codes without gaps, scales and minima."""
        count = prod(int(str(d)) for d in self.codes.type.shape)
        return -(-count * self.bits // 8) + self.scales.nbytes + self.minima.nbytes

    def const(self, source: str) -> Const:
        """The f32 constant that they mean; ``source`` is its name in the checkpoint."""
        attrs = (("bits", self.bits), ("group", self.group))
        data = OpData(OP, (self.codes, self.scales, self.minima), attrs)
        return Const(TensorType("f32", self.codes.type.shape), data, source)


def format_name(bits: int, group: int) -> str:
    return f"u{bits}_g{group}"


def coded(const: Const) -> Coded | None:
    """The parts of ``const``, or None where it is kept as numbers."""
    if not isinstance(const.data, OpData) or const.data.op != OP:
        return None
    attrs = dict(const.data.attrs)
    bits, group = attrs["bits"], attrs["group"]
    assert isinstance(bits, int) and isinstance(group, int)
    codes, scales, minima = const.data.operands
    return Coded(codes, scales, minima, bits, group)


def stored_bytes(const: Const) -> int:
    """Bytes of a constant as it is kept."""
    parts = coded(const)
    return const.nbytes if parts is None else parts.nbytes
