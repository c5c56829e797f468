"""Kernel specs of sparse attention: over listed blocks, over listed tokens, and two results made one."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.tvm.kernels import block_attention as block_kernel
from fretsaw.backends.tvm.kernels import gather_attention as gather_kernel
from fretsaw.backends.tvm.kernels import merge_attention as merge_kernel
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kv_storage import KvType
from fretsaw.backends.tvm.specs import Spec, scalars_first


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

    def build(self, isa: Isa) -> tirx.PrimFunc:
        spec = block_kernel.BlockAttentionSpec(
            self.heads, self.kv_heads, self.head_dim, isa, self.value_dim, self.scale, self.page,
            soft_cap=self.softcap, sinks=self.sinks, kv=self.kv, lse=self.lse, name=self.name, lists=self.lists,
            first=self.first, last=self.last, listed_decode=self.decode,
        )  # fmt: skip
        return scalars_first(block_kernel.block_attention(spec), scalars=1, outputs=1 + self.lse)


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

    def build(self, isa: Isa) -> tirx.PrimFunc:
        spec = gather_kernel.GatherSpec(
            self.heads, self.kv_heads, self.head_dim, isa, self.value_dim, self.scale, self.page,
            soft_cap=self.softcap, kv=self.kv, lse=True, name=self.name, lists=self.lists, listed_decode=self.decode,
            distance=self.distance, layout=self.layout,
        )  # fmt: skip
        return scalars_first(gather_kernel.gather_attention(spec), scalars=1, outputs=2)


@dataclass(frozen=True)
class MergeAttentionSpec(Spec):
    """Inputs o1 [T, H, Ev], lse1 f32[T, H], o2, lse2; outputs [T, H*Ev], and f32[T, H] with lse."""

    heads: int
    value_dim: int
    lse: bool = False

    def build(self, isa: Isa) -> tirx.PrimFunc:
        return merge_kernel.merge_attention(self.heads, self.value_dim, isa, self.lse, self.name)
