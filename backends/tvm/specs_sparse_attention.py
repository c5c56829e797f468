"""Kernel specs of sparse attention: over listed blocks, over listed tokens, and two results made one."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.tvm.kernels import block_attention as block_kernel
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
