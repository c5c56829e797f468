"""Kernel specs of the least and greatest keys that are kept beside pages (plan/key_bounds.py)."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.tvm.kernels import key_bounds as kernels
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kv_storage import KvType
from fretsaw.backends.tvm.specs import Spec


@dataclass(frozen=True)
class KeepBoundsSpec(Spec):
    """Inputs k_pages, table, lens, cu, key_bounds (written in place); scalar layer; no outputs."""

    kv_heads: int
    size: int
    kv: KvType = "f32"

    def build(self, isa: Isa) -> tirx.PrimFunc:
        return kernels.keep_bounds(kernels.KeyBoundSpec(self.kv_heads, self.size, isa, kv=self.kv, name=self.name))


@dataclass(frozen=True)
class StoredBoundsSpec(Spec):
    """Inputs table, lens, cu, key_bounds, q [T, H, E]; scalar layer; output f32[QB, H, KB]."""

    heads: int
    kv_heads: int
    size: int
    scale: float

    def build(self, isa: Isa) -> tirx.PrimFunc:
        spec = kernels.KeyBoundSpec(self.kv_heads, self.size, isa, self.heads, self.scale, name=self.name)
        return kernels.stored_bound_scores(spec)
