"""Embedding lookup: rows of a table that is stored in weight panels (shared with the output head) or row by row."""

from __future__ import annotations

from tvm import tirx

from fretsaw.backends.program.codes import Grouped, weight_storage
from fretsaw.backends.program.pack import PANEL, STORAGE
from fretsaw.backends.program.specs.layers import EmbeddingSpec
from fretsaw.backends.tvm.kernels.emit import Expr, bind, dim, kernel, load, loop, parallel, splat, store
from fretsaw.backends.tvm.kernels.grouped import GroupReader
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns
from fretsaw.backends.tvm.kernels.tile import widen_load


def embedding(spec: EmbeddingSpec, isa: Isa) -> tirx.PrimFunc:
    """Return the PrimFunc of a lookup.

    Arguments in order: ``ids i32[T]`` (each in [0, V), the caller checks); ``table`` ([ceil(V/16), D, 16] or
    [V, D], uint16 for bf16); ``out f32[T, D]``.
    """
    with kernel(spec.name) as k:
        t = dim("T")
        ids = k.arg("ids", (t,), "int32")
        panels, stored = -(-spec.vocabulary // PANEL), weight_storage(spec.weight)
        if isinstance(stored, Grouped):
            table = k.arg("table", stored.shape(panels, spec.width), "int32")
        else:
            shape = (panels, spec.width, PANEL) if spec.packed else (spec.vocabulary, spec.width)
            table = k.arg("table", shape, STORAGE[stored])
        out = k.arg("out", (t, spec.width))
        with parallel(t) as row:
            token = bind(tirx.Cast("int64", load(ids, [row])))
            if isinstance(stored, Grouped):
                reader = GroupReader(stored, table, 1)

                def put(c: Expr, value: Expr) -> None:
                    store(out, [row, c], value * splat(spec.scale, 1) if spec.scale != 1.0 else value)

                reader.column(token // PANEL, token % PANEL, spec.width, put)
            elif spec.packed:
                with loop(spec.width) as c:
                    value = widen_load(table, [token // PANEL, c, token % PANEL], 1)
                    store(out, [row, c], value * splat(spec.scale, 1) if spec.scale != 1.0 else value)
            else:
                for_columns(
                    spec.width,
                    isa.lanes,
                    lambda c, n: store(out, [row, c], widen_load(table, [token, c], n) * splat(spec.scale, n)),
                )
    return k.func
