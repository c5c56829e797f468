"""Keys that stand for blocks by what the block's own attention makes of them (``ir/ops/select_memory.py``, LongHeads).

The mean of the mixed values is the mix by the mean of the weights: so much less is multiplied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.program.pack import PANEL
from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
    fma,
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
    workspace,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns
from fretsaw.backends.tvm.kernels.select_cache import NEVER, multiply, tiles_of
from fretsaw.backends.tvm.kernels.select_step import QueryBlock, Step
from fretsaw.backends.tvm.kernels.select_turn import angles, turn
from fretsaw.backends.tvm.kernels.softmax_block import LOG2E, fold
from fretsaw.ir.kv import BLOCK

Rows = Callable[[Expr, Expr, int], Expr]


@dataclass(frozen=True)
class ChunkSpec:
    """One kernel."""

    heads: int
    kv_heads: int
    size: int
    scale: float
    layout: str
    isa: Isa
    name: str = "chunk_keys"


@dataclass(frozen=True)
class _Work:
    """Memory of a task: turned queries and keys, keys by column, and weights of queries for keys."""

    x: Buffer  # [tiles of 64, E]
    keys: Buffer  # [64, E]
    columns: Buffer  # [E, 64]
    weights: Buffer  # [tiles of 64, 64]
    mean: Buffer  # [64], mean weights, and then those of the mean
    mixed: Buffer  # [E]

    @staticmethod
    def allocate(spec: ChunkSpec) -> _Work:
        room, size = tiles_of(spec.isa, BLOCK), spec.size
        shapes = (room, size), (BLOCK, size), (size, BLOCK), (room, BLOCK), (BLOCK,), (size,)
        return _Work(*(workspace(shape) for shape in shapes))


def chunk_keys(spec: ChunkSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``lens``, ``cu`` (:class:`Step`); ``q f32[T, H, E]``; ``k`` and ``v f32[T, K, E]``;
    ``inv_freq f32[E/2]``; ``out f32[B, H, KB, E]``.
    """
    half = spec.size // 2
    with kernel(spec.name) as k:
        tokens, width = dim("T"), dim("KB")
        step = Step.declare(k, i64(0))
        q = k.arg("q", (tokens, spec.heads, spec.size))
        keys, values = (k.arg(x, (tokens, spec.kv_heads, spec.size)) for x in "kv")
        freq = k.arg("inv_freq", (half,))
        out = k.arg("out", (step.sequences, spec.heads, width, spec.size))
        cos, sin = workspace((BLOCK, half)), workspace((BLOCK, half))
        with loop(BLOCK) as r:
            angles(r, freq, half, cos, sin, [r])
        with parallel(step.sequences * width) as task:
            b, j = bind(task // width), bind(task % width)
            with loop(spec.heads) as h, loop(spec.size) as e:
                store(out, [b, h, j, e], splat(0.0, 1))
            with step.within(b, j) as block:
                work = _Work.allocate(spec)
                first = bind(block.first - block.block * BLOCK)
                with loop(spec.kv_heads) as g:
                    with loop(block.count) as r:
                        turn(
                            spec.isa,
                            spec.layout,
                            spec.size,
                            (keys, [block.token + r, g]),
                            cos,
                            sin,
                            [first + r],
                            (work.keys, [r]),
                        )
                        with loop(spec.size) as e:
                            store(work.columns, [e, r], load(work.keys, [r, e]))
                    with loop(spec.heads // spec.kv_heads) as i:
                        h = bind(g * (spec.heads // spec.kv_heads) + i)
                        with loop(block.count) as r:
                            turn(
                                spec.isa,
                                spec.layout,
                                spec.size,
                                (q, [block.token + r, h]),
                                cos,
                                sin,
                                [first + r],
                                (work.x, [r]),
                            )
                        _attend(spec, work, block, values, g)
                        _mix(spec, work.mean, lambda r, c, n: load(work.keys, [r, c], n), block.count, out, [b, h, j])
    return k.func


def _attend(spec: ChunkSpec, work: _Work, block: QueryBlock, values: Buffer, g: Expr) -> None:
    """From turned queries and keys to the weights of the mean of what they mix."""
    lanes, factor = spec.isa.lanes, spec.scale * LOG2E
    with loop(BLOCK // PANEL) as p:
        multiply(
            spec.isa,
            block.count,
            spec.size,
            work.x,
            lambda k, col: load(work.columns, [k, p * PANEL + col], lanes),
            lambda row, col, value: store(work.weights, [row, p * PANEL + col], value * splat(factor, lanes)),
        )
    with loop(block.count) as r:
        _softmax(spec, work.weights, [r], block.count)
    share = bind(splat(1.0, 1) / tirx.Cast("float32", block.count))

    def column(c: Expr, n: int) -> None:
        acc = scratch((n,))
        store(acc, [0], splat(0.0, n))
        with loop(block.count) as r:
            store(acc, [0], load(acc, [0], n) + load(work.weights, [r, c], n))
        store(work.mean, [c], load(acc, [0], n) * splat(share, n))

    for_columns(BLOCK, lanes, column)
    _mix(spec, work.mean, lambda r, c, n: load(values, [block.token + r, g, c], n), block.count, work.mixed, [])

    def logits(c: Expr, n: int) -> None:
        acc = scratch((n,))
        store(acc, [0], splat(0.0, n))
        with loop(spec.size) as e:
            x = bind(load(work.mixed, [e]))
            store(acc, [0], fma(splat(x, n), load(work.columns, [e, c], n), load(acc, [0], n)))
        store(work.mean, [c], load(acc, [0], n) * splat(factor, n))

    for_columns(BLOCK, lanes, logits)
    _softmax(spec, work.mean, [], block.count)


def _softmax(spec: ChunkSpec, x: Buffer, at: list[Expr], count: Expr) -> None:
    """Turn the first ``count`` of 64 logits, in units of log 2, into weights; others become 0, whatever they are."""
    lanes, limit = spec.isa.lanes, bind(tirx.Cast("int32", count))
    best, total = scratch((lanes,)), scratch((lanes,))
    store(best, [0], splat(NEVER, lanes))
    store(total, [0], splat(0.0, lanes))

    def exists(v: int) -> Expr:
        return tirx.Ramp(i32(v), i32(1), lanes) < tirx.Broadcast(limit, lanes)

    for v in range(0, BLOCK, lanes):
        value = bind(select(exists(v), load(x, [*at, i64(v)], lanes), splat(NEVER, lanes)))
        store(x, [*at, i64(v)], value)
        store(best, [0], fmax(value, load(best, [0], lanes)))
    top = bind(fold(bind(load(best, [0], lanes)), fmax))
    for v in range(0, BLOCK, lanes):
        e = bind(math.exp2_nonpositive(load(x, [*at, i64(v)], lanes) - splat(top, lanes)))
        e = bind(select(exists(v), e, splat(0.0, lanes)))
        store(x, [*at, i64(v)], e)
        store(total, [0], load(total, [0], lanes) + e)
    share = bind(splat(1.0, 1) / fold(bind(load(total, [0], lanes)), lambda a, b: a + b))
    for v in range(0, BLOCK, lanes):
        store(x, [*at, i64(v)], load(x, [*at, i64(v)], lanes) * splat(share, lanes))


def _mix(spec: ChunkSpec, weights: Buffer, row: Rows, count: Expr, out: Buffer, at: list[Expr]) -> None:
    """Add up rows, ``row(r, column, lanes)``, with weights."""

    def column(c: Expr, n: int) -> None:
        acc = scratch((n,))
        store(acc, [0], splat(0.0, n))
        with loop(count) as r:
            w = bind(load(weights, [r]))
            store(acc, [0], fma(splat(w, n), row(r, c, n), load(acc, [0], n)))
        store(out, [*at, c], load(acc, [0], n))

    for_columns(spec.size, spec.isa.lanes, column)
