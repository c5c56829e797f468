"""Kernel specs as the plan names them: hashable, without an ISA. ``build(isa)`` gives the PrimFunc.

The argument order of every PrimFunc is: buffers read, scalars, buffers made, which is what Relax calls with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from tvm import tirx

from fretsaw.backends.tvm import lower_expr
from fretsaw.backends.tvm.expr import Expr as Tree
from fretsaw.backends.tvm.expr import LeafKind
from fretsaw.backends.tvm.kernels import attention as attention_kernel
from fretsaw.backends.tvm.kernels import embedding as embedding_kernel
from fretsaw.backends.tvm.kernels import gemm as gemm_kernel
from fretsaw.backends.tvm.kernels import norm as norm_kernel
from fretsaw.backends.tvm.kernels import rope as rope_kernel
from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, Index, dim, kernel, lanes_of, load, parallel, store
from fretsaw.backends.tvm.kernels.epilogue import Epilogue, Glu
from fretsaw.backends.tvm.kernels.grouped import Grouped
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns
from fretsaw.backends.tvm.kv_storage import KvType

WIDE = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}  # the kernels' names of weight types


def weight_storage(name: str) -> str | Grouped:
    """How kernels read weights that are stored as ``f32``, ``f16``, ``bf16``, or in codes such as ``u4_g32``."""
    return WIDE[name] if name in WIDE else grouped_storage(name)


def grouped_storage(name: str) -> Grouped:
    """How codes such as ``u4_g32`` lie in words."""
    bits, group = name.removeprefix("u").split("_g")
    return Grouped(int(bits), int(group))


@dataclass(frozen=True)
class Spec:
    """Base: a name made of the kind and a digest of the parameters, equal for equal specs."""

    @property
    def name(self) -> str:
        text = repr([(f.name, getattr(self, f.name)) for f in fields(self)])
        kind = type(self).__name__.removesuffix("Spec").lower()
        return f"{kind}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def build(self, isa: Isa) -> tirx.PrimFunc:
        """The kernel for one instruction set."""
        raise NotImplementedError


def scalars_first(func: tirx.PrimFunc, scalars: int, outputs: int) -> tirx.PrimFunc:
    """``func`` with its last ``scalars`` parameters moved before the ``outputs`` buffers that precede them."""
    params = list(func.params)
    head = params[: len(params) - scalars - outputs]
    made = params[len(head) : len(params) - scalars]
    moved = [*head, *params[len(params) - scalars :], *made]
    return tirx.PrimFunc(moved, func.body, func.ret_type, func.attrs)


def _leaf(buffers: Sequence[Buffer], kinds: Sequence[LeafKind], row: Expr, col: Expr, lanes: int, index: int) -> Expr:
    """Load leaf ``index`` of an elementwise expression at (row, col)."""
    from fretsaw.backends.tvm.kernels.emit import splat

    kind, buffer = kinds[index], buffers[index]
    if kind == "col":
        return load(buffer, [col], lanes)
    if kind == "row":
        return splat(load(buffer, [row, 0]), lanes)
    return load(buffer, [row, col], lanes)


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

    def build(self, isa: Isa) -> tirx.PrimFunc:
        shapes: dict[LeafKind, tuple[int | None, ...]] = {
            "full": (None, self.n),
            "col": (self.n,),
            "row": (None, 1),
        }
        extra = tuple((f"x{i + 1}", shapes[kind]) for i, kind in enumerate(self.kinds))

        def callback(value: Expr, row: Expr, col: Expr, buffers: Sequence[Buffer]) -> Expr:
            lanes = lanes_of(value)
            return lower_expr.lower(
                self.tree,
                lambda i: value if i == 0 else _leaf(buffers, self.kinds, row, col, lanes, i - 1),
                lanes,
            )

        plain = self.tree == ("leaf", 0)
        glu = Glu(self.glu) if self.glu else None
        epilogue = Epilogue(glu=glu, callback=None if plain else callback, extra=extra)
        return gemm_kernel.gemm(
            gemm_kernel.GemmSpec(self.n, self.k, isa, weight_storage(self.weight), epilogue, name=self.name)
        )


@dataclass(frozen=True)
class NormSpec(Spec):
    """Inputs x [T, D] (or [T, H, D]), gain and bias [D] where asked; output like x."""

    width: int
    eps: float
    kind: str
    gain: bool
    bias: bool = False
    heads: int = 0

    def build(self, isa: Isa) -> tirx.PrimFunc:
        return norm_kernel.norm(
            norm_kernel.NormSpec(self.width, isa, self.eps, self.kind, self.gain, self.bias, self.heads, name=self.name)
        )


@dataclass(frozen=True)
class EmbeddingSpec(Spec):
    """Inputs ids i32[T], table in panels or row by row; output [T, D]."""

    vocabulary: int
    width: int
    weight: str
    scale: float = 1.0
    packed: bool = True

    def build(self, isa: Isa) -> tirx.PrimFunc:
        return embedding_kernel.embedding(
            embedding_kernel.EmbeddingSpec(
                self.vocabulary, self.width, isa, weight_storage(self.weight), self.packed, self.scale, self.name
            )
        )


@dataclass(frozen=True)
class AnglesSpec(Spec):
    """Inputs positions i32[T], inv_freq [R]; outputs cos and sin [T, R]."""

    pairs: int
    scale: float

    def build(self, isa: Isa) -> tirx.PrimFunc:
        return rope_kernel.rope_angles(self.pairs, self.scale, self.name)


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

    def build(self, isa: Isa) -> tirx.PrimFunc:
        spec = rope_kernel.RopeSpec(
            self.heads, self.head_dim, isa, self.kv_heads, self.value_dim, 2 * self.pairs, self.layout, self.page,
            self.q_norm, self.k_norm, self.eps, self.separate, self.kv, self.name,
        )  # fmt: skip
        return scalars_first(rope_kernel.rope_append(spec), scalars=1, outputs=1)


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

    def build(self, isa: Isa) -> tirx.PrimFunc:
        spec = attention_kernel.AttentionSpec(
            self.heads, self.kv_heads, self.head_dim, isa, self.value_dim, self.scale, self.page, self.window,
            self.softcap, self.sinks, kv=self.kv, name=self.name,
        )  # fmt: skip
        return scalars_first(attention_kernel.attention(spec), scalars=1, outputs=1)


@dataclass(frozen=True)
class TakeSpec(Spec):
    """Inputs x [T, D], rows i32[R]; output [R, D]."""

    width: int

    def build(self, isa: Isa) -> tirx.PrimFunc:
        with kernel(self.name) as k:
            t, r = dim("T"), dim("R")
            x, rows = k.arg("x", (t, self.width)), k.arg("rows", (r,), "int32")
            out = k.arg("out", (r, self.width))
            with parallel(r) as i:
                row = tirx.Cast("int64", load(rows, [i]))
                for_columns(self.width, isa.lanes, lambda c, n: store(out, [i, c], load(x, [row, c], n)))
        return k.func


@dataclass(frozen=True)
class CopySpec(Spec):
    """Input x [T, W]; output columns start .. start + width of it, [T, width]."""

    source: int
    start: int
    width: int

    def build(self, isa: Isa) -> tirx.PrimFunc:
        with kernel(self.name) as k:
            t = dim("T")
            x, out = k.arg("x", (t, self.source)), k.arg("out", (t, self.width))
            with parallel(t) as i:
                for_columns(self.width, isa.lanes, lambda c, n: store(out, [i, c], load(x, [i, self.start + c], n)))
        return k.func


@dataclass(frozen=True)
class ElementwiseSpec(Spec):
    """Inputs: the tree's leaves, by kind; output [T, N]."""

    width: int
    tree: Tree
    kinds: tuple[LeafKind, ...]

    def build(self, isa: Isa) -> tirx.PrimFunc:
        shapes: dict[LeafKind, Callable[[Expr], tuple[Index, ...]]]
        shapes = {"full": lambda t: (t, self.width), "col": lambda t: (self.width,), "row": lambda t: (t, 1)}
        with kernel(self.name) as k:
            t = dim("T")
            buffers = [k.arg(f"x{i}", shapes[kind](t)) for i, kind in enumerate(self.kinds)]
            out = k.arg("out", (t, self.width))
            with parallel(t) as row:

                def column(c: Expr, n: int) -> None:
                    value = lower_expr.lower(self.tree, lambda i: _leaf(buffers, self.kinds, row, c, n, i), n)
                    store(out, [row, c], value)

                for_columns(self.width, isa.lanes, column)
        return k.func
