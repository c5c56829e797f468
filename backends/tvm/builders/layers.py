"""Kernels of the layers that most models have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx

from fretsaw.backends.program.codes import weight_storage
from fretsaw.backends.program.expr import Expr as Tree
from fretsaw.backends.program.expr import LeafKind
from fretsaw.backends.program.specs import layers as specs
from fretsaw.backends.tvm import lower_expr
from fretsaw.backends.tvm.builders.arguments import extra_buffers, leaf, scalars_first
from fretsaw.backends.tvm.kernels import attention as attention_kernel
from fretsaw.backends.tvm.kernels import gemm as gemm_kernel
from fretsaw.backends.tvm.kernels import rope as rope_kernel
from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, Index, dim, kernel, lanes_of, load, parallel, store
from fretsaw.backends.tvm.kernels.epilogue import Callback, Epilogue, Glu
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns


def after(tree: Tree, kinds: Sequence[LeafKind]) -> Callback | None:
    """``tree`` on a kernel's result, which is its leaf 0; None where that is all of it."""

    def callback(value: Expr, row: Expr, col: Expr, buffers: Sequence[Buffer]) -> Expr:
        lanes = lanes_of(value)
        return lower_expr.lower(
            tree, lambda i: value if i == 0 else leaf(buffers, kinds, row, col, lanes, i - 1), lanes
        )  # fmt: skip

    return None if tree == ("leaf", 0) else callback


def linear(s: specs.LinearSpec, isa: Isa) -> tirx.PrimFunc:
    glu = Glu(s.glu) if s.glu else None
    epilogue = Epilogue(glu=glu, callback=after(s.tree, s.kinds), extra=extra_buffers(s.kinds, s.n))
    return gemm_kernel.gemm(gemm_kernel.GemmSpec(s.n, s.k, isa, weight_storage(s.weight), epilogue, name=s.name))


def angles(s: specs.AnglesSpec, isa: Isa) -> tirx.PrimFunc:
    return rope_kernel.rope_angles(s.pairs, s.scale, s.name)


def append(s: specs.AppendSpec, isa: Isa) -> tirx.PrimFunc:
    spec = rope_kernel.RopeSpec(
        s.heads, s.head_dim, isa, s.kv_heads, s.value_dim, 2 * s.pairs, s.layout, s.page, s.q_norm, s.k_norm, s.eps,
        s.separate, s.kv, s.name,
    )  # fmt: skip
    return scalars_first(rope_kernel.rope_append(spec), scalars=1, outputs=1)


def attention(s: specs.AttentionSpec, isa: Isa) -> tirx.PrimFunc:
    spec = attention_kernel.AttentionSpec(
        s.heads, s.kv_heads, s.head_dim, isa, s.value_dim, s.scale, s.page, s.window, s.softcap, s.sinks, kv=s.kv,
        name=s.name,
    )  # fmt: skip
    return scalars_first(attention_kernel.attention(spec), scalars=1, outputs=1)


def take(s: specs.TakeSpec, isa: Isa) -> tirx.PrimFunc:
    with kernel(s.name) as k:
        t, r = dim("T"), dim("R")
        x, rows = k.arg("x", (t, s.width)), k.arg("rows", (r,), "int32")
        out = k.arg("out", (r, s.width))
        with parallel(r) as i:
            row = tirx.Cast("int64", load(rows, [i]))
            for_columns(s.width, isa.lanes, lambda c, n: store(out, [i, c], load(x, [row, c], n)))
    return k.func


def copy(s: specs.CopySpec, isa: Isa) -> tirx.PrimFunc:
    with kernel(s.name) as k:
        t = dim("T")
        x, out = k.arg("x", (t, s.source)), k.arg("out", (t, s.width))
        with parallel(t) as i:
            for_columns(s.width, isa.lanes, lambda c, n: store(out, [i, c], load(x, [i, s.start + c], n)))
    return k.func


def elementwise(s: specs.ElementwiseSpec, isa: Isa) -> tirx.PrimFunc:
    shapes: dict[LeafKind, Callable[[Expr], tuple[Index, ...]]]
    shapes = {"full": lambda t: (t, s.width), "col": lambda t: (s.width,), "row": lambda t: (t, 1)}
    with kernel(s.name) as k:
        t = dim("T")
        buffers = [k.arg(f"x{i}", shapes[kind](t)) for i, kind in enumerate(s.kinds)]
        out = k.arg("out", (t, s.width))
        with parallel(t) as row:

            def column(c: Expr, n: int) -> None:
                value = lower_expr.lower(s.tree, lambda i: leaf(buffers, s.kinds, row, c, n, i), n)
                store(out, [row, c], value)

            for_columns(s.width, isa.lanes, column)
    return k.func
