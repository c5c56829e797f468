"""Kernel specs of the least and greatest keys that are kept beside pages (plan/key_bounds.py)."""

from __future__ import annotations

from dataclasses import dataclass

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.program.specs.base import Spec


@dataclass(frozen=True)
class KeepBoundsSpec(Spec):
    """Inputs k_pages, table, lens, cu, key_bounds (written in place); scalar layer; no outputs."""

    kv_heads: int
    size: int
    kv: KvType = "f32"


@dataclass(frozen=True)
class StoredBoundsSpec(Spec):
    """Inputs table, lens, cu, key_bounds, q [T, H, E]; scalar layer; output f32[QB, H, KB]."""

    heads: int
    kv_heads: int
    size: int
    scale: float
