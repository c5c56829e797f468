"""Queries pooled per query block, cached keys pooled per key block: mean, maximum or minimum of those that exist."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.tvm.kernels.emit import (
    Expr,
    bind,
    dim,
    i64,
    kernel,
    load,
    loop,
    parallel,
    scratch,
    select,
    splat,
    store,
    when,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns
from fretsaw.backends.tvm.kernels.select_cache import KeyCache
from fretsaw.backends.tvm.kernels.select_step import Step
from fretsaw.ir.kv import BLOCK

_EMPTY = {"mean": 0.0, "max": float("-inf"), "min": float("inf")}


@dataclass(frozen=True)
class PoolSpec:
    """One pool of queries or keys.

    Args:
        heads: Of queries, or of keys.
        kind: ``mean``, ``max`` or ``min``.
        decode: Keys: pool those of sequences with one token in the step, too.
    """

    heads: int
    size: int
    kind: str
    isa: Isa
    kv: KvType = "f32"
    decode: bool = False
    name: str = "pool_blocks"

    def join(self, a: Expr, b: Expr) -> Expr:
        """Return the sum, maximum or minimum of two numbers or vectors."""
        if self.kind == "mean":
            return a + b
        return select(a > b, a, b) if self.kind == "max" else select(a < b, a, b)

    def finish(self, total: Expr, share: Expr, lanes: int) -> Expr:
        """Return the pool from what was joined and one over how many."""
        return total * splat(share, lanes) if self.kind == "mean" else total


def pool_queries(spec: PoolSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``lens``, ``cu`` (:class:`Step`); ``q f32[T, H, E]``; ``out f32[QB, H, E]``.
    """
    with kernel(spec.name) as k:
        rows = dim("QB")
        step = Step.declare(k, rows)
        q = k.arg("q", (dim("T"), spec.heads, spec.size))
        out = k.arg("out", (rows, spec.heads, spec.size))
        with step.each_row() as (row, owner):
            with loop(spec.heads) as h, loop(spec.size) as e:
                store(out, [row, h, e], splat(0.0, 1))
            with step.used(row, owner) as block, loop(spec.heads) as h:
                share = bind(splat(1.0, 1) / tirx.Cast("float32", block.count))

                def column(c: Expr, n: int) -> None:
                    acc = scratch((n,))
                    store(acc, [0], splat(_EMPTY[spec.kind], n))
                    with loop(block.count) as i:
                        store(acc, [0], spec.join(load(acc, [0], n), bind(load(q, [block.token + i, h, c], n))))
                    store(out, [row, h, c], spec.finish(load(acc, [0], n), share, n))

                for_columns(spec.size, spec.isa.lanes, column)
    return k.func


def pool_keys(spec: PoolSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``k_pages``, ``table``, ``lens``, ``cu``, ``layer`` (:class:`KeyCache`);
    ``out f32[B, K, KB, E]``.
    """
    with kernel(spec.name) as k:
        width = dim("KB")
        cache, _ = KeyCache.declare(k, spec.kv, spec.heads, spec.size, i64(0), width)
        step = cache.step
        out = k.arg("out", (step.sequences, spec.heads, width, spec.size))
        with parallel(step.sequences * spec.heads * width) as task:
            b, h, j = bind(task // width // spec.heads), bind(task // width % spec.heads), bind(task % width)
            used = bind(tirx.min(i64(BLOCK), step.end(b) - j * BLOCK))
            pooled = bind(tirx.Cast("int64", tirx.all(used > 0, cache.scored(b, spec.decode))))
            with when(pooled == 0), loop(spec.size) as e:
                store(out, [b, h, j, e], splat(0.0, 1))
            with when(pooled != 0):
                page = cache.page(b, h, j)
                share = bind(splat(1.0, 1) / tirx.Cast("float32", used))
                with loop(spec.size) as e:
                    joined = cache.fold_keys(page, e, used, spec.isa.lanes, spec.join, _EMPTY[spec.kind])
                    store(out, [b, h, j, e], spec.finish(joined, share, 1))
    return k.func
