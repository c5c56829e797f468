"""Scores of blocks from pooled queries and keys, their softmax, and their sum over heads.

A row's sums run over blocks in groups of ``lanes`` counted from block 0, with zeros after its own block, so they do not
depend on the width of the page table.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
    fma,
    fmax,
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
from fretsaw.backends.tvm.kernels.rows import reduce_row
from fretsaw.backends.tvm.kernels.select_cache import NEVER, fill
from fretsaw.backends.tvm.kernels.select_step import Step
from fretsaw.backends.tvm.kernels.softmax_block import fold


@dataclass(frozen=True)
class DotSpec:
    """Products of pools.

    Args:
        band: Rotary pairs ``start ... end`` that count, () for all dimensions.
    """

    heads: int
    kv_heads: int
    size: int
    scale: float
    isa: Isa
    band: tuple[int, ...] = ()
    name: str = "block_scores"

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Dimensions that count: (first, how many)."""
        if not self.band:
            return [(0, self.size)]
        start, end = self.band
        return [(start, end - start), (self.size // 2 + start, end - start)]

    @property
    def factor(self) -> float:
        """Of the dot products."""
        return self.scale * self.size / sum(n for _, n in self.runs)


def _dot(
    spec: DotSpec, a: tuple[Buffer, list[Expr]], b: tuple[Buffer, list[Expr]], runs: list[tuple[int, int]]
) -> Expr:
    total: Expr | None = None
    for start, count in runs:

        def step(s: Expr, c: Expr, n: int, start: int = start) -> Expr:
            x, y = (load(buf, [*head, start + c], n) for buf, head in (a, b))
            return fma(x, y, s)

        part = bind(reduce_row(count, spec.isa.lanes, step))
        total = part if total is None else bind(total + part)
    assert total is not None
    return total


def block_scores(spec: DotSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``lens``, ``cu`` (:class:`Step`); ``qp f32[QB, H, E]``; ``kp f32[B, K, KB, E]``;
    ``out f32[QB, H, KB]``.
    """
    with kernel(spec.name) as k:
        rows, width = dim("QB"), dim("KB")
        step = Step.declare(k, rows)
        qp = k.arg("qp", (rows, spec.heads, spec.size))
        kp = k.arg("kp", (step.sequences, spec.kv_heads, width, spec.size))
        out = k.arg("out", (rows, spec.heads, width))
        squares = _squares(spec, kp, step.sequences, width) if spec.band else None
        with step.each_row() as (row, owner):
            with loop(spec.heads) as h:
                fill(out, [row, h], i64(0), width, NEVER)
            with step.used(row, owner) as block, loop(spec.heads) as h:
                b, mine = block.sequence, bind(h * spec.kv_heads // spec.heads)
                last = bind(tirx.min(width - 1, block.block))
                factor = splat(spec.factor, 1)
                if squares is not None:
                    own = [_dot(spec, (qp, [row, h]), (qp, [row, h]), runs) for runs in (spec.runs, [(0, spec.size)])]
                    key = [bind(load(squares, [b, mine, last, i64(i)])) for i in range(2)]
                    factor = bind(factor * _ratio(spec, own[0], own[1]) * _ratio(spec, key[0], key[1]))
                with loop(last + 1) as j:
                    product = _dot(spec, (qp, [row, h]), (kp, [b, mine, j]), spec.runs)
                    store(out, [row, h, j], product * factor)
    return k.func


def _squares(spec: DotSpec, kp: Buffer, sequences: Expr, width: Expr) -> Buffer:
    """Sums of squares of pooled keys up to each block: of the band, of all dimensions. f32[B, K, KB, 2]."""
    sums = workspace((sequences, spec.kv_heads, width, 2))
    with parallel(sequences * spec.kv_heads) as task:
        b, h = bind(task // spec.kv_heads), bind(task % spec.kv_heads)
        total = scratch((2,))
        store(total, [0], splat(0.0, 2))
        with loop(width) as j:
            for i, runs in enumerate((spec.runs, [(0, spec.size)])):
                store(total, [i], load(total, [i]) + _dot(spec, (kp, [b, h, j]), (kp, [b, h, j]), runs))
                store(sums, [b, h, j, i], load(total, [i]))
    return sums


def _ratio(spec: DotSpec, band: Expr, whole: Expr) -> Expr:
    """Return the rms of all dimensions over that of the band, from sums of squares; 1 where the band is zero."""
    share = sum(n for _, n in spec.runs) / spec.size
    root = math.sqrt(bind(whole * splat(share, 1) / select(band > 0.0, band, splat(1.0, 1))))
    return bind(select(band > 0.0, root, splat(1.0, 1)))


def softmax_blocks(groups: int, isa: Isa, name: str = "softmax_blocks") -> tirx.PrimFunc:
    """Return the PrimFunc: ``scores f32[QB, G, KB]``, ``out`` alike."""
    lanes = isa.lanes
    with kernel(name) as k:
        rows, width = dim("QB"), dim("KB")
        scores, out = (k.arg(x, (rows, groups, width)) for x in ("scores", "out"))
        with parallel(rows) as row, loop(groups) as g:
            work = workspace((width + lanes,))
            vectors = bind((width + lanes - 1) // lanes)
            best, total = scratch((lanes,)), scratch((lanes,))
            store(best, [0], splat(NEVER, lanes))
            store(total, [0], splat(0.0, lanes))
            fill(work, [], vectors * lanes - lanes, vectors * lanes, NEVER)
            with loop(width) as j:
                store(work, [j], load(scores, [row, g, j]))
            with loop(vectors) as v:
                store(best, [0], fmax(bind(load(work, [v * lanes], lanes)), load(best, [0], lanes)))
            top = bind(fold(bind(load(best, [0], lanes)), fmax))
            base = bind(select(top > splat(-3e38, 1), top, splat(0.0, 1)))
            with loop(vectors) as v:
                e = math.exp_nonpositive(load(work, [v * lanes], lanes) - splat(base, lanes))
                store(work, [v * lanes], e)
                store(total, [0], load(total, [0], lanes) + e)
            whole = bind(fold(bind(load(total, [0], lanes)), lambda a, b: a + b))
            share = bind(select(whole > 0.0, splat(1.0, 1) / whole, splat(0.0, 1)))
            with loop(width) as j:
                store(out, [row, g, j], load(work, [j]) * share)
    return k.func


def pool_heads(heads: int, groups: int, kind: str, name: str = "pool_heads") -> tirx.PrimFunc:
    """Return the PrimFunc: ``scores f32[QB, H, KB]``, ``out f32[QB, groups, KB]``."""
    each = heads // groups
    with kernel(name) as k:
        rows, width = dim("QB"), dim("KB")
        scores, out = k.arg("scores", (rows, heads, width)), k.arg("out", (rows, groups, width))
        with parallel(rows) as row, loop(groups) as g, loop(width) as j:
            total = bind(load(scores, [row, g * each, j]))
            for i in range(1, each):
                x = bind(load(scores, [row, g * each + i, j]))
                total = bind(select(x > total, x, total) if kind == "max" else total + x)
            store(out, [row, g, j], total * splat(1.0 / each, 1) if kind == "mean" else total)
    return k.func
