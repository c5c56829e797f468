"""Mean of the keys of a block that local attention gives most weight (``ir/ops/select_memory.py``, InfLLM).

A task is one head of keys of one sequence: for each query block and head of queries the weights of its rows over the
keys in their windows, complete, 64 rows wide; columns are added up over rows, query blocks and heads, in this order.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
    fmax,
    i32,
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
    workspace,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.select_cache import NEVER, KeyCache, tiles_of
from fretsaw.backends.tvm.kernels.select_lines import LineSpec, load_queries, multiply_keys
from fretsaw.backends.tvm.kernels.select_masks import byte
from fretsaw.backends.tvm.kernels.select_step import QueryBlock
from fretsaw.backends.tvm.kernels.softmax_block import fold
from fretsaw.ir.kv import BLOCK


@dataclass(frozen=True)
class RepresentativeSpec:
    """One kernel.

    Args:
        window: Last keys that a query attends to.
        count: Keys of the mean.
        decode: Score sequences with one token in the step, too.
    """

    heads: int
    kv_heads: int
    size: int
    window: int
    count: int
    scale: float
    isa: Isa
    kv: KvType = "f32"
    decode: bool = False
    name: str = "representative_keys"

    @property
    def product(self) -> LineSpec:
        """The product of a query block with keys."""
        return LineSpec(self.heads, self.kv_heads, self.size, BLOCK, self.scale, self.isa, self.kv)


@dataclass(frozen=True)
class _Work:
    """Memory of a task: queries, their weights for the keys in reach, and what each key has received."""

    x: Buffer  # [tiles of 64, E]
    weights: Buffer  # [tiles of 64, slots in reach of a block]
    received: Buffer  # [64 * KB]
    taken: Buffer  # [64]

    @staticmethod
    def allocate(spec: RepresentativeSpec, width: Expr) -> _Work:
        room, reach = tiles_of(spec.isa, BLOCK), (spec.window + BLOCK - 2) // BLOCK + 1
        slots = tirx.min(width, i64(reach)) * BLOCK
        return _Work(
            workspace((room, spec.size)),
            workspace((room, slots)),
            workspace((width * BLOCK,)),
            workspace((BLOCK,), "int8"),
        )


def representative_keys(spec: RepresentativeSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``k_pages``, ``table``, ``lens``, ``cu``, ``q f32[T, H, E]``, ``layer`` (:class:`KeyCache`);
    ``out f32[B, K, KB, E]``.
    """
    with kernel(spec.name) as k:
        width = dim("KB")
        cache, q = KeyCache.declare(k, spec.kv, spec.kv_heads, spec.size, i64(0), width, spec.heads)
        assert q is not None
        step = cache.step
        out = k.arg("out", (step.sequences, spec.kv_heads, width, spec.size))
        with parallel(step.sequences * spec.kv_heads) as task:
            b, g = bind(task // spec.kv_heads), bind(task % spec.kv_heads)
            with loop(width) as j, loop(spec.size) as e:
                store(out, [b, g, j, e], splat(0.0, 1))
            with when(cache.scored(b, spec.decode)):
                work = _Work.allocate(spec, width)
                with loop(width * BLOCK) as c:
                    store(work.received, [c], splat(0.0, 1))
                with loop(bind(step.blocks(b))) as i:
                    block = step.block(bind(step.first_row(b) + i), b)
                    with loop(spec.heads // spec.kv_heads) as n:
                        _receive(spec, cache, q, work, block, g, bind(g * (spec.heads // spec.kv_heads) + n))
                begin = bind(step.before(b) // BLOCK)
                with loop(bind((step.end(b) + BLOCK - 1) // BLOCK) - begin) as i:
                    _represent(spec, cache, work, b, g, bind(begin + i), out)
    return k.func


def _receive(
    spec: RepresentativeSpec, cache: KeyCache, q: Buffer, work: _Work, block: QueryBlock, g: Expr, h: Expr
) -> None:
    """Add to what keys have received the weights that a query block gives them."""
    lanes, count = spec.isa.lanes, block.count
    low = bind(tirx.max(i64(0), block.first + 1 - spec.window) // BLOCK)
    load_queries(spec.product, q, work.x, block.token, count, h)
    multiply_keys(spec.product, cache, work.x, work.weights, (block.sequence, g), low, bind(block.block + 1), count)
    vectors = bind((block.block + 1 - low) * (BLOCK // lanes))
    with loop(count) as r:
        position = bind(block.first + r - low * BLOCK)
        _weigh(spec, work.weights, r, bind(position + 1 - spec.window), position, vectors)
    with loop(vectors) as v:
        acc = scratch((lanes,))
        store(acc, [0], splat(0.0, lanes))
        with loop(count) as r:
            store(acc, [0], load(acc, [0], lanes) + load(work.weights, [r, v * lanes], lanes))
        at = bind(low * BLOCK + v * lanes)
        store(work.received, [at], load(work.received, [at], lanes) + load(acc, [0], lanes))


def _weigh(spec: RepresentativeSpec, weights: Buffer, r: Expr, first: Expr, last: Expr, vectors: Expr) -> None:
    """Turn the logits of a row, in units of log 2, into weights of slots ``first ... last``; others become 0."""
    lanes = spec.isa.lanes
    bounds = [bind(tirx.Cast("int32", x)) for x in (first, last)]
    best, total = scratch((lanes,)), scratch((lanes,))
    store(best, [0], splat(NEVER, lanes))
    store(total, [0], splat(0.0, lanes))
    with loop(vectors) as v:
        slots = tirx.Ramp(tirx.Cast("int32", bind(v * lanes)), i32(1), lanes)
        low, high = (tirx.Broadcast(x, lanes) for x in bounds)
        value = bind(select(slots >= low, load(weights, [r, v * lanes], lanes), splat(NEVER, lanes)))
        value = bind(select(slots <= high, value, splat(NEVER, lanes)))
        store(weights, [r, v * lanes], value)
        store(best, [0], fmax(value, load(best, [0], lanes)))
    top = bind(fold(bind(load(best, [0], lanes)), fmax))
    with loop(vectors) as v:
        logit = bind(load(weights, [r, v * lanes], lanes))
        e = bind(math.exp2_nonpositive(logit - splat(top, lanes)))
        e = bind(select(logit > splat(NEVER, lanes), e, splat(0.0, lanes)))
        store(weights, [r, v * lanes], e)
        store(total, [0], load(total, [0], lanes) + e)
    share = bind(splat(1.0, 1) / fold(bind(load(total, [0], lanes)), lambda a, b: a + b))
    with loop(vectors) as v:
        store(weights, [r, v * lanes], load(weights, [r, v * lanes], lanes) * splat(share, lanes))


def _represent(spec: RepresentativeSpec, cache: KeyCache, work: _Work, b: Expr, g: Expr, j: Expr, out: Buffer) -> None:
    """Write down the mean of a block's keys that have received most; of equal ones the first."""
    page = cache.page(b, g, j)
    held = bind(tirx.min(i64(BLOCK), cache.step.end(b) - j * BLOCK))
    count = bind(tirx.min(i64(spec.count), held))
    share = bind(splat(1.0, 1) / tirx.Cast("float32", count))
    best = scratch((1,), "int64")
    with loop(BLOCK) as c:
        store(work.taken, [c], byte(False))
    with loop(count):
        store(best, [0], i64(-1))
        with loop(held) as c:
            old = bind(load(best, [0]))
            most = bind(load(work.received, [j * BLOCK + tirx.max(old, i64(0))]))
            more = tirx.any(old < 0, bind(load(work.received, [j * BLOCK + c])) > most)
            store(best, [0], T.Select(tirx.all(load(work.taken, [c]) == 0, more), c, old))
        found = bind(load(best, [0]))
        store(work.taken, [found], byte(True))
        with loop(spec.size) as e:
            store(out, [b, g, j, e], load(out, [b, g, j, e]) + cache.keys(page, e, found))
    with loop(spec.size) as e:
        store(out, [b, g, j, e], load(out, [b, g, j, e]) * share)
