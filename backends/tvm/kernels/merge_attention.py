"""Two attentions of the same queries over different keys made one, by the logarithms of their sums."""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import bind, dim, fma, fmax, kernel, load, loop, parallel, select, splat, store
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns
from fretsaw.backends.tvm.kernels.softmax_block import EMPTY, LN2, LOG2E


def merge_attention(heads: int, size: int, isa: Isa, lse: bool = False, name: str = "merge_attention") -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``o1 f32[T, H, Ev]``; ``lse1 f32[T, H]``, natural logarithms; ``o2``; ``lse2``;
    ``out f32[T, H * Ev]``; with ``lse`` ``lse f32[T, H]``. A side with -inf counts for nothing, and the other is the
    result bit for bit; two of them give zeros and -inf.
    """
    with kernel(name) as k:
        t = dim("T")
        (o1, l1), (o2, l2) = ((k.arg(f"o{i}", (t, heads, size)), k.arg(f"lse{i}", (t, heads))) for i in (1, 2))
        out = k.arg("out", (t, heads * size))
        sums = k.arg("lse", (t, heads)) if lse else None
        with parallel(t) as row, loop(heads) as h:
            first, second = bind(load(l1, [row, h])), bind(load(l2, [row, h]))
            # EMPTY stands in for -inf, whose difference with itself would be no number.
            top = bind(fmax(fmax(first, second), splat(EMPTY, 1)))
            a, b = (math.exp2_nonpositive(bind((x - top) * splat(LOG2E, 1))) for x in (first, second))
            total = bind(a + b)
            if sums is not None:
                store(sums, [row, h], fma(T.log2(total), splat(LN2, 1), top))
            factor = bind(select(total > splat(0.0, 1), splat(1.0, 1) / total, splat(0.0, 1)))
            share1, share2 = bind(a * factor), bind(b * factor)

            def column(c: tirx.Expr, n: int) -> None:
                other = bind(load(o2, [row, h, c], n) * splat(share2, n))
                store(out, [row, h * size + c], fma(load(o1, [row, h, c], n), splat(share1, n), other))

            for_columns(size, isa.lanes, column)
    return k.func
