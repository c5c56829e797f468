"""The instruction sets that kernels are written for, and the register shapes they allow.

A kernel is emitted for one ISA as explicit vectors of ``lanes`` f32 values, so the code does not depend
on what an auto-vectorizer makes of a loop.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Isa:
    """One x86-64 micro-architecture level.

    Args:
        name: ``x86-64-v3`` (AVX2, FMA, F16C) or ``x86-64-v4`` (AVX-512F/BW/DQ/VL).

    Raises:
        ValueError: for any other name.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in ("x86-64-v3", "x86-64-v4"):
            raise ValueError(f"unknown ISA {self.name!r}: expected x86-64-v3 or x86-64-v4")

    @property
    def lanes(self) -> int:
        """Number of f32 values in a vector register."""
        return 8 if self.name == "x86-64-v3" else 16

    @property
    def rows(self) -> int:
        """Rows of a GEMM register tile: 6x16 fills 12 of 16 registers, 8x48 fills 24 of 32."""
        return 6 if self.name == "x86-64-v3" else 8

    @property
    def tile_panels(self) -> int:
        """Weight panels that a GEMM register tile spans."""
        return 1 if self.name == "x86-64-v3" else 3

    @property
    def target(self) -> dict[str, str | int]:
        """The TVM target for this ISA, as the argument of ``tvm.target.Target``."""
        return {"kind": "llvm", "mcpu": self.name}


V3 = Isa("x86-64-v3")
V4 = Isa("x86-64-v4")
