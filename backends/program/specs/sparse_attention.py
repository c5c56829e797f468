"""Kernel specs of sparse attention: over listed blocks, over listed tokens, and two results made one."""

from __future__ import annotations

from dataclasses import dataclass

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.program.specs.base import Spec


@dataclass(frozen=True)
class BlockAttentionSpec(Spec):
    """Inputs q [T, H, E], k_pages, v_pages, table, lens, cu, idx i32[QB, G, n], cnt i32[QB, G], sinks [H] where asked;
    scalar layer; outputs [T, H*Ev], and f32[T, H] with lse."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    page: int
    scale: float
    softcap: float
    sinks: bool
    lists: int
    first: tuple[int, ...]
    last: tuple[int, ...]
    decode: bool
    lse: bool
    kv: KvType = "f32"


@dataclass(frozen=True)
class GatherAttentionSpec(Spec):
    """Inputs q [T, H, E], k_pages, v_pages, table, lens, cu, ids i32[QB, G, N], cnt i32[QB, G], inv_freq [E/2] where
    there is a distance; scalar layer; outputs [T, H*Ev] and f32[T, H]."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    page: int
    scale: float
    softcap: float
    lists: int
    decode: bool
    kv: KvType = "f32"
    distance: int = 0
    layout: str = "half"


@dataclass(frozen=True)
class MergeAttentionSpec(Spec):
    """Inputs o1 [T, H, Ev], lse1 f32[T, H], o2, lse2; outputs [T, H*Ev], and f32[T, H] with lse."""

    heads: int
    value_dim: int
    lse: bool = False
