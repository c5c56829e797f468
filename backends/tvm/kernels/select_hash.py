"""Scores by the buckets of a hash, and blocks drawn by one (``ir/ops/select_hash.py``, HyperAttention).

Signs are of sums in f64, so that buckets are those of the reference but for sums that are nothing but rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
    i32,
    i64,
    kernel,
    load,
    loop,
    parallel,
    scratch,
    store,
    when,
    workspace,
)
from fretsaw.backends.tvm.kernels.select_cache import NEVER, fill
from fretsaw.backends.tvm.kernels.select_masks import as_byte, byte
from fretsaw.backends.tvm.kernels.select_step import Step
from fretsaw.ir.ops.select_hash import MIX

_F64, _U64 = "float64", "uint64"


@dataclass(frozen=True)
class HashSpec:
    """One kernel of scores; ``planes`` is P."""

    heads: int
    kv_heads: int
    size: int
    planes: int
    name: str = "hash_scores"


def hash_scores(spec: HashSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``lens``, ``cu`` (:class:`Step`); ``qp f32[QB, H, E]``; ``kp f32[B, K, KB, E]``;
    ``planes f32[E, P]``; ``out f32[QB, H, KB]``.
    """
    with kernel(spec.name) as k:
        rows, width = dim("QB"), dim("KB")
        step = Step.declare(k, rows)
        qp = k.arg("qp", (rows, spec.heads, spec.size))
        kp = k.arg("kp", (step.sequences, spec.kv_heads, width, spec.size))
        planes = k.arg("planes", (spec.size, spec.planes))
        out = k.arg("out", (rows, spec.heads, width))
        there = workspace((step.sequences, spec.kv_heads, width), "int32")
        with parallel(step.sequences * spec.kv_heads) as task:
            b, h = bind(task // spec.kv_heads), bind(task % spec.kv_heads)
            with loop(width) as j:
                store(there, [b, h, j], _bucket(spec, kp, [b, h, j], planes))
        with step.each_row() as (row, owner):
            with loop(spec.heads) as h:
                fill(out, [row, h], i64(0), width, NEVER)
            with step.used(row, owner) as block, loop(spec.heads) as h:
                own = _bucket(spec, qp, [row, h], planes)
                mine = bind(h * spec.kv_heads // spec.heads)
                with loop(tirx.min(width, block.block + 1)) as j:
                    far = bind(load(there, [block.sequence, mine, j]) - own)
                    store(out, [row, h, j], tirx.Cast("float32", tirx.min(far, i32(0) - far)))
    return k.func


def _bucket(spec: HashSpec, x: Buffer, at: list[Expr], planes: Buffer) -> Expr:
    """Return the rank, in the Gray code, of the signs of a vector."""
    rank, bit, total = scratch((1,), "int32"), scratch((1,), "int32"), scratch((1,), _F64)
    store(rank, [0], i32(0))
    store(bit, [0], i32(0))
    with loop(spec.planes) as p:
        store(total, [0], tirx.const(0.0, _F64))
        with loop(spec.size) as e:
            product = tirx.Cast(_F64, load(x, [*at, e])) * tirx.Cast(_F64, load(planes, [e, p]))
            store(total, [0], load(total, [0]) + product)
        sign = tirx.Cast("int32", load(total, [0]) > tirx.const(0.0, _F64))
        store(bit, [0], bind(load(bit, [0]) ^ sign))
        store(rank, [0], load(rank, [0]) * 2 + load(bit, [0]))
    return bind(load(rank, [0]))


def sampled_blocks(groups: int, count: int, seed: int, name: str = "sampled_blocks") -> tirx.PrimFunc:
    """Return the PrimFunc. Arguments in order: ``lens``, ``cu`` (:class:`Step`); ``out int8[QB, G, KB]``."""
    with kernel(name) as k:
        rows, width = dim("QB"), dim("KB")
        step = Step.declare(k, rows)
        out = k.arg("out", (rows, groups, width), "int8")
        with step.each_row() as (row, owner):
            with loop(groups) as g, loop(width) as j:
                store(out, [row, g, j], byte(False))
            with step.used(row, owner) as block:
                drawn = workspace((width,), _U64)
                visible = bind(tirx.min(width, block.block + 1))
                with loop(groups) as g:
                    with loop(visible) as j:
                        store(out, [row, g, j], as_byte(visible <= count))
                    with when(visible > count):
                        state = _mix(_mix(_mix(_word(0), _word(seed)), _unsigned(g)), _unsigned(block.block))
                        with loop(visible) as j:
                            store(drawn, [j], _mix(state, _unsigned(j)))
                        with loop(count):
                            store(out, [row, g, _least(drawn, out, [row, g], visible)], byte(True))
    return k.func


def _least(drawn: Buffer, out: Buffer, at: list[Expr], visible: Expr) -> Expr:
    """Return the block with the least number among those not taken yet. Numbers of a row differ: the last round of
    mixing undoes nothing of the block's number."""
    best = scratch((1,), "int64")
    store(best, [0], i64(-1))
    with loop(visible) as j:
        old = bind(load(best, [0]))
        less = bind(load(drawn, [j])) < bind(load(drawn, [tirx.max(old, i64(0))]))
        better = tirx.all(load(out, [*at, j]) == 0, tirx.any(old < 0, less))
        store(best, [0], tirx.Select(better, j, old))
    return bind(load(best, [0]))


def _word(n: int) -> Expr:
    return bind(tirx.const(n, _U64))


def _unsigned(x: Expr) -> Expr:
    return tirx.Cast(_U64, x)


def _low(x: Expr) -> Expr:
    return bind(x & tirx.const(0xFFFFFFFF, _U64))


def _high(x: Expr) -> Expr:
    return bind(x >> tirx.const(32, _U64))


def _product(x: Expr, n: int, plus: int = 0) -> Expr:
    """Return ``x * n + plus`` modulo 2**64, of parts of 32 bits: TVM tells LLVM that products and sums never wrap."""
    low, high = tirx.const(n & 0xFFFFFFFF, _U64), tirx.const(n >> 32, _U64)
    first = bind(_low(x) * low)
    bottom = bind(_low(first) + tirx.const(plus & 0xFFFFFFFF, _U64))
    top = _high(first) + _low(_high(x) * low) + _low(_low(x) * high) + _high(bottom)
    top = _low(bind(top + tirx.const(plus >> 32, _U64)))
    return bind((top << tirx.const(32, _U64)) | _low(bottom))


def _mix(state: Expr, n: Expr) -> Expr:
    """Return a state with a number mixed in: a round of SplitMix64."""
    state = _product(bind(state ^ n), MIX[0], MIX[0])
    for shift, factor in ((30, MIX[1]), (27, MIX[2])):
        state = _product(bind(state ^ (state >> tirx.const(shift, _U64))), factor)
    return bind(state ^ (state >> tirx.const(31, _U64)))
