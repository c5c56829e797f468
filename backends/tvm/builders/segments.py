"""Kernels of packed encoders."""

from __future__ import annotations

from tvm import tirx

from fretsaw.backends.program.specs.segments import PoolSpec, UnitSpec, VarlenSpec
from fretsaw.backends.tvm.kernels import pool
from fretsaw.backends.tvm.kernels import varlen_attention as varlen_kernel
from fretsaw.backends.tvm.kernels.isa import Isa


def varlen_attention(s: VarlenSpec, isa: Isa) -> tirx.PrimFunc:
    spec = varlen_kernel.VarlenSpec(
        s.heads, s.kv_heads, s.head_dim, isa, s.scale, s.value_dim, s.causal, s.window, s.softcap, s.sinks,
        2 * s.pairs, s.layout, s.separate, name=s.name,
    )  # fmt: skip
    return varlen_kernel.varlen_attention(spec)


def segment_pool(s: PoolSpec, isa: Isa) -> tirx.PrimFunc:
    return pool.segment_pool(s.width, s.kind, isa, s.name)


def l2_norm(s: UnitSpec, isa: Isa) -> tirx.PrimFunc:
    return pool.l2_norm(s.width, s.eps, isa, s.name)
