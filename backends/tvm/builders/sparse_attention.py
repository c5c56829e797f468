"""Kernels of sparse attention: over listed blocks, over listed tokens, and two results made one."""

from __future__ import annotations

from tvm import tirx

from fretsaw.backends.program.specs import sparse_attention as specs
from fretsaw.backends.tvm.builders.arguments import scalars_first
from fretsaw.backends.tvm.kernels import block_attention as block_kernel
from fretsaw.backends.tvm.kernels import gather_attention as gather_kernel
from fretsaw.backends.tvm.kernels import merge_attention as merge_kernel
from fretsaw.backends.tvm.kernels.isa import Isa


def block_attention(s: specs.BlockAttentionSpec, isa: Isa) -> tirx.PrimFunc:
    spec = block_kernel.BlockAttentionSpec(
        s.heads, s.kv_heads, s.head_dim, isa, s.value_dim, s.scale, s.page, soft_cap=s.softcap, sinks=s.sinks, kv=s.kv,
        lse=s.lse, name=s.name, lists=s.lists, first=s.first, last=s.last, listed_decode=s.decode,
    )  # fmt: skip
    return scalars_first(block_kernel.block_attention(spec), scalars=1, outputs=1 + s.lse)


def gather_attention(s: specs.GatherAttentionSpec, isa: Isa) -> tirx.PrimFunc:
    spec = gather_kernel.GatherSpec(
        s.heads, s.kv_heads, s.head_dim, isa, s.value_dim, s.scale, s.page, soft_cap=s.softcap, kv=s.kv, lse=True,
        name=s.name, lists=s.lists, listed_decode=s.decode, distance=s.distance, layout=s.layout,
    )  # fmt: skip
    return scalars_first(gather_kernel.gather_attention(spec), scalars=1, outputs=2)


def merge_attention(s: specs.MergeAttentionSpec, isa: Isa) -> tirx.PrimFunc:
    return merge_kernel.merge_attention(s.heads, s.value_dim, isa, s.lse, s.name)
