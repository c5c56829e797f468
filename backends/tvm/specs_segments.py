"""Kernel specs of packed encoders: attention within segments, pooling, vectors of length one."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.tvm.kernels import pool as pool_kernel
from fretsaw.backends.tvm.kernels import varlen_attention as varlen_kernel
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.specs import Spec


@dataclass(frozen=True)
class VarlenSpec(Spec):
    """Inputs qkv (or q, k, v), cos and sin where rotated, cu, sinks [H] where asked; output [T, H*Ev]."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    pairs: int
    layout: str
    scale: float
    causal: bool
    window: int
    softcap: float
    sinks: bool
    separate: bool

    def build(self, isa: Isa) -> tirx.PrimFunc:
        spec = varlen_kernel.VarlenSpec(
            self.heads, self.kv_heads, self.head_dim, isa, self.scale, self.value_dim, self.causal, self.window,
            self.softcap, self.sinks, 2 * self.pairs, self.layout, self.separate, name=self.name,
        )  # fmt: skip
        return varlen_kernel.varlen_attention(spec)


@dataclass(frozen=True)
class PoolSpec(Spec):
    """Inputs x [T, D], cu; output [B, D]."""

    width: int
    kind: str

    def build(self, isa: Isa) -> tirx.PrimFunc:
        return pool_kernel.segment_pool(self.width, self.kind, isa, self.name)


@dataclass(frozen=True)
class UnitSpec(Spec):
    """Input x [B, D]; output x over its length."""

    width: int
    eps: float

    def build(self, isa: Isa) -> tirx.PrimFunc:
        return pool_kernel.l2_norm(self.width, self.eps, isa, self.name)
