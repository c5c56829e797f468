"""Kernel specs of packed encoders: attention within segments, pooling, vectors of length one."""

from __future__ import annotations

from dataclasses import dataclass

from fretsaw.backends.program.specs.base import Spec


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


@dataclass(frozen=True)
class PoolSpec(Spec):
    """Inputs x [T, D], cu; output [B, D]."""

    width: int
    kind: str


@dataclass(frozen=True)
class UnitSpec(Spec):
    """Input x [B, D]; output x over its length."""

    width: int
    eps: float
