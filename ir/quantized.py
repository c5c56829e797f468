"""Constants in integer codes: found, made and counted."""

from __future__ import annotations

from collections.abc import Sequence
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


def coded_stack(const: Const) -> tuple[Coded, ...] | None:
    """The parts of each matrix of a stack [E, N, K] whose matrices have codes of their own, or None.

    Such a constant is ``concat`` along the first axis of constants [1, N, K].
    """
    if not isinstance(const.data, OpData) or const.data.op != "concat" or dict(const.data.attrs).get("axis") != 0:
        return None
    found = [coded(part) for part in const.data.operands]
    if len(const.type.shape) != 3 or any(p.type.shape[0] != 1 for p in const.data.operands):
        return None
    return None if any(f is None for f in found) else tuple(f for f in found if f is not None)


def stack(parts: Sequence[Coded], source: str) -> Const:
    """The constant [E, N, K] of matrices [1, N, K] in codes of different widths."""
    consts = tuple(part.const(source) for part in parts)
    shape = (len(consts), *consts[0].type.shape[1:])
    return Const(TensorType("f32", shape), OpData("concat", consts, (("axis", 0),)), source)


def joined(parts: Sequence[Coded], source: str) -> Const:
    """The constant [E, N, K] of matrices [1, N, K] in codes of one width, as one array of codes."""
    planes = zip(*((p.codes, p.scales, p.minima) for p in parts), strict=True)
    stacked = [_concat(plane) for plane in planes]
    return Coded(stacked[0], stacked[1], stacked[2], parts[0].bits, parts[0].group).const(source)


def _concat(parts: Sequence[Const]) -> Const:
    count = sum(int(str(p.type.shape[0])) for p in parts)
    kind = TensorType(parts[0].type.dtype, (count, *parts[0].type.shape[1:]))
    return Const(kind, OpData("concat", tuple(parts), (("axis", 0),)))


def stored_bytes(const: Const) -> int:
    """Bytes of a constant as it is kept."""
    parts = coded_stack(const) or tuple(filter(None, [coded(const)]))
    return sum(part.nbytes for part in parts) if parts else const.nbytes
