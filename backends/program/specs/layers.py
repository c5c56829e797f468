"""Kernel specs of the layers that most models have. Frozen parameters only: a target makes kernels of them.

The argument order of every kernel is: buffers read, scalars, buffers made.
"""

from __future__ import annotations

from dataclasses import dataclass

from fretsaw.backends.program.expr import Expr as Tree
from fretsaw.backends.program.expr import LeafKind
from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.program.specs.base import Spec


@dataclass(frozen=True)
class LinearSpec(Spec):
    """``tree(x @ W^T)``: inputs x [T, K], panels, then the tree's leaves from 1 on; output [T, N].

    With ``glu`` the accumulators are gate (leaf 0) and up (leaf 1) and the result is ``act(gate) * up``.
    """

    n: int
    k: int
    weight: str
    tree: Tree = ("leaf", 0)
    kinds: tuple[LeafKind, ...] = ()
    glu: str = ""


@dataclass(frozen=True)
class NormSpec(Spec):
    """A norm over the last dimension. Inputs x [T, D], gain and bias [D] where asked; output like x.

    Args:
        width: D, the length of a row.
        kind: ``rms`` or ``layer``.
        heads: With H > 0 the input is [T, H, D] and every head is a row of its own.
    """

    width: int
    eps: float
    kind: str = "rms"
    gain: bool = True
    bias: bool = False
    heads: int = 0


@dataclass(frozen=True)
class EmbeddingSpec(Spec):
    """A lookup in a table of ``vocabulary`` rows of ``width`` values. Inputs ids i32[T], table; output [T, D].

    Args:
        scale: Constant factor, in f32 (Gemma).
        packed: The table is ``pack_panels`` of [V, D]; otherwise plain [V, D].
        weight: How the table is stored; in codes it is ``pack_codes`` of [V, D].
    """

    vocabulary: int
    width: int
    weight: str = "f32"
    scale: float = 1.0
    packed: bool = True


@dataclass(frozen=True)
class AnglesSpec(Spec):
    """Inputs positions i32[T], inv_freq [R]; outputs cos and sin [T, R]."""

    pairs: int
    scale: float


@dataclass(frozen=True)
class AppendSpec(Spec):
    """Norms, rotation of q and k, append of k and v.

    Inputs qkv (or q, k, v), cos, sin, gains where asked, table, lens, cu, k_pages, v_pages; scalar layer; output q.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    pairs: int
    layout: str
    page: int
    q_norm: bool
    k_norm: bool
    eps: float
    separate: bool
    kv: KvType = "f32"


@dataclass(frozen=True)
class AttentionSpec(Spec):
    """Inputs q [T, H, E], k_pages, v_pages, table, lens, cu, sinks [H] where asked; scalar layer; output [T, H*Ev]."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    page: int
    scale: float
    window: int
    softcap: float
    sinks: bool
    kv: KvType = "f32"


@dataclass(frozen=True)
class TakeSpec(Spec):
    """Inputs x [T, D], rows i32[R]; output [R, D]."""

    width: int


@dataclass(frozen=True)
class CopySpec(Spec):
    """Input x [T, W]; output columns start .. start + width of it, [T, width]."""

    source: int
    start: int
    width: int


@dataclass(frozen=True)
class ElementwiseSpec(Spec):
    """Inputs: the tree's leaves, by kind; output [T, N]."""

    width: int
    tree: Tree
    kinds: tuple[LeafKind, ...]
