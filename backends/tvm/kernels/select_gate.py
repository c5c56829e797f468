"""Pools of queries and keys through a learned gate (``ir/ops/select_gate.py``, SeerAttention).

Queries and keys are turned back, projected and turned: all linear but for the largest and smallest key, and those keep
their place under a positive factor, so what the rotary embedding multiplies by (rope_scale) cancels. Angles are those
of a block's first position, per block, and those of positions within a block, one table for all.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.program.kv_storage import KvType
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
    when,
    workspace,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns
from fretsaw.backends.tvm.kernels.select_cache import NEVER, KeyCache
from fretsaw.backends.tvm.kernels.select_step import QueryBlock, Step
from fretsaw.backends.tvm.kernels.select_turn import angles, pair_of, turn
from fretsaw.backends.tvm.kernels.softmax_block import fold
from fretsaw.ir.kv import BLOCK
from fretsaw.ir.ops.select_gate import POOLS


@dataclass(frozen=True)
class GateSpec:
    """One pool.

    Args:
        heads: Of queries or keys that are pooled.
        gates: Heads of the result.
        weighted: There is a weight.
        decode: Keys: pool those of sequences with one token in the step, too.
    """

    heads: int
    size: int
    gates: int
    layout: str
    isa: Isa
    weighted: bool = True
    kv: KvType = "f32"
    decode: bool = False
    name: str = "gate"

    @property
    def half(self) -> int:
        """Pairs that turn."""
        return self.size // 2


@dataclass(frozen=True)
class _Angles:
    """Cosines and sines: of positions within a block (rows, or columns, of a table), and of a block's first one."""

    cos: Buffer
    sin: Buffer
    far_cos: Buffer
    far_sin: Buffer

    @staticmethod
    def near(spec: GateSpec, freq: Buffer) -> tuple[Buffer, Buffer]:
        """Write the table [64, E/2], outside of all loops."""
        cos, sin = workspace((BLOCK, spec.half)), workspace((BLOCK, spec.half))
        with loop(BLOCK) as r:
            angles(r, freq, spec.half, cos, sin, [r])
        return cos, sin

    @staticmethod
    def of(spec: GateSpec, table: tuple[Buffer, Buffer], freq: Buffer, block: Expr) -> _Angles:
        far = workspace((spec.half,)), workspace((spec.half,))
        angles(bind(block * BLOCK), freq, spec.half, *far, [])
        return _Angles(*table, *far)


def gate_queries(spec: GateSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``lens``, ``cu`` (:class:`Step`); ``q f32[T, H, E]``; ``inv_freq f32[E/2]``;
    ``weight f32[H, E, E]`` if ``weighted``; ``out f32[QB, H, E]``.
    """
    with kernel(spec.name) as k:
        rows = dim("QB")
        step = Step.declare(k, rows)
        q = k.arg("q", (dim("T"), spec.heads, spec.size))
        freq = k.arg("inv_freq", (spec.half,))
        weight = k.arg("weight", (spec.heads, spec.size, spec.size)) if spec.weighted else None
        out = k.arg("out", (rows, spec.heads, spec.size))
        table = _Angles.near(spec, freq)
        with step.each_row() as (row, owner):
            with loop(spec.heads) as h, loop(spec.size) as e:
                store(out, [row, h, e], splat(0.0, 1))
            with step.used(row, owner) as block:
                turns = _Angles.of(spec, table, freq, block.block)
                pooled = workspace((spec.size,))
                with loop(spec.heads) as h:
                    _mean(spec, turns, q, block, h, pooled)
                    _finish(spec, turns, pooled, weight, h, out, [row, h])
    return k.func


def _mean(spec: GateSpec, turns: _Angles, q: Buffer, block: QueryBlock, h: Expr, out: Buffer) -> None:
    """Turn the rows of a block back, each by its place in the block and their mean by the block's, into ``out``."""
    row, total = workspace((spec.size,)), workspace((spec.size,))
    share = bind(splat(1.0, 1) / tirx.Cast("float32", block.count))
    with loop(spec.size) as e:
        store(total, [e], splat(0.0, 1))
    with loop(block.count) as i:
        place = bind(block.first + i - block.block * BLOCK)
        turn(
            spec.isa, spec.layout, spec.size, (q, [block.token + i, h]), turns.cos, turns.sin, [place], (row, []), True
        )
        for_columns(spec.size, spec.isa.lanes, lambda c, n: store(total, [c], load(total, [c], n) + load(row, [c], n)))
    for_columns(spec.size, spec.isa.lanes, lambda c, n: store(total, [c], load(total, [c], n) * splat(share, n)))
    turn(spec.isa, spec.layout, spec.size, (total, []), turns.far_cos, turns.far_sin, [], (out, []), True)


def gate_keys(spec: GateSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``k_pages``, ``table``, ``lens``, ``cu``, ``weight f32[H, 3 * E, E]``, ``inv_freq f32[E/2]``,
    ``layer`` (:class:`KeyCache`); ``out f32[B, H, KB, E]``.
    """
    each = spec.gates // spec.heads
    with kernel(spec.name) as k:
        width = dim("KB")
        more = (
            ("weight", (spec.gates, POOLS * spec.size, spec.size), "float32"),
            ("inv_freq", (spec.half,), "float32"),
        )
        cache, (weight, freq) = KeyCache.declare_keys(k, spec.kv, spec.heads, spec.size, width, more)
        step = cache.step
        out = k.arg("out", (step.sequences, spec.gates, width, spec.size))
        cos, sin = _Angles.near(spec, freq)
        table = workspace((spec.half, BLOCK)), workspace((spec.half, BLOCK))
        with loop(spec.half) as c, loop(BLOCK) as r:
            store(table[0], [c, r], load(cos, [r, c]))
            store(table[1], [c, r], load(sin, [r, c]))
        with parallel(step.sequences * width) as task:
            b, j = bind(task // width), bind(task % width)
            with loop(spec.gates) as h, loop(spec.size) as e:
                store(out, [b, h, j, e], splat(0.0, 1))
            used = bind(tirx.min(i64(BLOCK), step.end(b) - j * BLOCK))
            with when(tirx.all(used > 0, cache.scored(b, spec.decode))):
                turns = _Angles.of(spec, table, freq, j)
                pooled = workspace((POOLS * spec.size,))
                with loop(spec.heads) as g:
                    page = cache.page(b, g, j)
                    with loop(spec.half) as c:
                        _pool(spec, cache, turns, page, c, used, pooled)
                    with loop(each) as i:
                        h = bind(g * each + i)
                        _finish(spec, turns, pooled, weight, h, out, [b, h, j])
    return k.func


def _pool(spec: GateSpec, cache: KeyCache, turns: _Angles, page: Expr, c: Expr, used: Expr, out: Buffer) -> None:
    """Pool one pair of elements of the first ``used`` keys of a page, turned back. Others may be anything."""
    lanes, size = spec.isa.lanes, spec.size
    far_cos, far_sin = (splat(bind(load(x, [c])), lanes) for x in (turns.far_cos, turns.far_sin))
    limit, first, second = bind(tirx.Cast("int32", used)), *(bind(e) for e in pair_of(spec.layout, size, c))
    empty = (NEVER, float("inf"), 0.0)
    pools = [[scratch((lanes,)) for _ in empty] for _ in range(2)]
    for pool in pools:
        for buf, value in zip(pool, empty, strict=True):
            store(buf, [0], splat(value, lanes))
    with loop(BLOCK // lanes) as v:
        slot = bind(v * lanes)
        near_cos, near_sin = (bind(load(x, [c, slot], lanes)) for x in (turns.cos, turns.sin))
        cos = bind(fma(near_cos, far_cos, bind(splat(0.0, lanes) - bind(near_sin * far_sin))))
        sin = bind(fma(near_cos, far_sin, bind(near_sin * far_cos)))
        a, b = (bind(cache.keys(page, e, slot, lanes)) for e in (first, second))
        exists = tirx.Ramp(tirx.Cast("int32", slot), i32(1), lanes) < tirx.Broadcast(limit, lanes)
        back = fma(a, cos, bind(b * sin)), fma(b, cos, bind(splat(0.0, lanes) - bind(a * sin)))
        for pool, value in zip(pools, map(bind, back), strict=True):
            large, small, total = (bind(select(exists, value, splat(x, lanes))) for x in empty)
            store(pool[0], [0], fmax(large, bind(load(pool[0], [0], lanes))))
            old = bind(load(pool[1], [0], lanes))
            store(pool[1], [0], select(small < old, small, old))
            store(pool[2], [0], load(pool[2], [0], lanes) + total)
    share = bind(splat(1.0, 1) / tirx.Cast("float32", used))
    for e, pool in zip((first, second), pools, strict=True):
        large, small, total = (bind(load(buf, [0], lanes)) for buf in pool)
        store(out, [e], fold(large, fmax))
        store(out, [size + e], fold(small, lambda x, y: select(x < y, x, y)))
        store(out, [2 * size + e], fold(total, lambda x, y: x + y) * share)


def _finish(
    spec: GateSpec, turns: _Angles, pooled: Buffer, weight: Buffer | None, h: Expr, out: Buffer, at: list[Expr]
) -> None:
    """Project what was pooled, if there is a weight, and write it down, turned by the block's first position."""
    found = pooled
    if weight is not None:
        found = workspace((spec.size,))

        def column(c: Expr, n: int) -> None:
            acc = scratch((n,))
            store(acc, [0], splat(0.0, n))
            with loop(pooled.ty.shape[0]) as e:
                x = bind(load(pooled, [e]))
                store(acc, [0], fma(splat(x, n), load(weight, [h, e, c], n), load(acc, [0], n)))
            store(found, [c], load(acc, [0], n))

        for_columns(spec.size, spec.isa.lanes, column)
    turn(spec.isa, spec.layout, spec.size, (found, []), turns.far_cos, turns.far_sin, [], (out, at))
