"""Kernels of the least and greatest keys that are kept beside pages."""

from __future__ import annotations

from tvm import tirx

from fretsaw.backends.program.specs.key_bounds import KeepBoundsSpec, StoredBoundsSpec
from fretsaw.backends.tvm.kernels import key_bounds as kernels
from fretsaw.backends.tvm.kernels.isa import Isa


def keep_bounds(s: KeepBoundsSpec, isa: Isa) -> tirx.PrimFunc:
    return kernels.keep_bounds(kernels.KeyBoundSpec(s.kv_heads, s.size, isa, kv=s.kv, name=s.name))


def stored_bounds(s: StoredBoundsSpec, isa: Isa) -> tirx.PrimFunc:
    return kernels.stored_bound_scores(kernels.KeyBoundSpec(s.kv_heads, s.size, isa, s.heads, s.scale, name=s.name))
