"""Upper bounds of logits from the least and greatest keys of blocks (``ir/ops/select_scores.py``, Quest).

``max(q * lo, q * hi)`` is ``max(q, 0) * hi + min(q, 0) * lo``: a product of depth 2 E, whose columns are blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.program.pack import PANEL
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
    fmax,
    i64,
    kernel,
    load,
    loop,
    parallel,
    select,
    splat,
    store,
    when,
    workspace,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns
from fretsaw.backends.tvm.kernels.select_cache import NEVER, fill, multiply, tiles_of
from fretsaw.backends.tvm.kernels.select_step import QueryBlock, Step
from fretsaw.ir.kv import BLOCK


@dataclass(frozen=True)
class BoundSpec:
    """One kernel.

    Args:
        decode: Score sequences with one token in the step, too.
        single: Score no others.
    """

    heads: int
    kv_heads: int
    size: int
    scale: float
    isa: Isa
    decode: bool = False
    single: bool = False
    name: str = "bound_scores"

    @property
    def group(self) -> int:
        """Query heads per head of keys."""
        return self.heads // self.kv_heads


def bound_scores(spec: BoundSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``lens``, ``cu`` (:class:`Step`); ``q f32[T, H, E]``; ``lo`` and ``hi f32[B, K, KB, E]``;
    ``out f32[QB, H, KB]``.
    """
    with kernel(spec.name) as k:
        rows, width = dim("QB"), dim("KB")
        step = Step.declare(k, rows)
        q = k.arg("q", (dim("T"), spec.heads, spec.size))
        ends = [k.arg(x, (step.sequences, spec.kv_heads, width, spec.size)) for x in ("lo", "hi")]
        out = k.arg("out", (rows, spec.heads, width))
        with parallel(rows) as row, loop(spec.heads) as h:
            fill(out, [row, h], i64(0), width, NEVER)
        panels = workspace(((width + PANEL - 1) // PANEL, 2 * spec.size, PANEL))
        with loop(step.sequences) as b, when(_scored(spec, step.count(b))):
            blocks = bind(step.blocks(b))
            held = bind(tirx.min(width, (step.end(b) + BLOCK - 1) // BLOCK))
            with loop(spec.kv_heads) as h:
                with parallel((held + PANEL - 1) // PANEL) as p, loop(2 * spec.size) as e, loop(PANEL) as lane:
                    j = bind(tirx.min(held - 1, p * PANEL + lane))
                    low, high = (load(x, [b, h, j, e % spec.size]) for x in ends)
                    store(panels, [p, e, lane], select(e < spec.size, bind(high), bind(low)))
                with parallel(blocks) as at:
                    piece = bind(T.Select(at % 2 == 0, at // 2, blocks - 1 - at // 2))
                    block = step.block(bind(step.first_row(b) + piece), b)
                    _score(spec, block, q, panels, out, h, bind(tirx.min(held, block.block + 1)))
    return k.func


def _scored(spec: BoundSpec, count: Expr) -> Expr:
    return count == 1 if spec.single else count > (0 if spec.decode else 1)


def _score(spec: BoundSpec, block: QueryBlock, q: Buffer, panels: Buffer, out: Buffer, h: Expr, visible: Expr) -> None:
    lanes = spec.isa.lanes
    room = tiles_of(spec.isa, BLOCK * spec.group)
    x, bounds = workspace((room, 2 * spec.size)), workspace((room, PANEL))
    rows = bind(block.count * spec.group)  # the queries of the first head, then those of the next
    with loop(bind((rows + spec.isa.rows - 1) // spec.isa.rows * spec.isa.rows)) as r:
        # Rows that fill the last tile repeat the last one: nobody reads what they give.
        own = bind(tirx.min(r, rows - 1))
        token, head = bind(block.token + own % block.count), bind(h * spec.group + own // block.count)

        def column(c: Expr, n: int) -> None:
            value = bind(load(q, [token, head, c], n))
            zero = splat(0.0, n)
            store(x, [r, c], select(value > zero, value, zero))
            store(x, [r, spec.size + c], select(value > zero, zero, value))

        for_columns(spec.size, lanes, column)
    with loop((visible + PANEL - 1) // PANEL) as p:
        multiply(
            spec.isa, rows, 2 * spec.size, x, lambda k, col: load(panels, [p, k, col], lanes),
            lambda row, col, value: store(bounds, [row, i64(col)], value),
        )  # fmt: skip
        with loop(spec.group) as g:
            best = workspace((PANEL,))
            for v in range(0, PANEL, lanes):
                store(best, [v], splat(NEVER, lanes))
                with loop(block.count) as i:
                    value = bind(load(bounds, [g * block.count + i, i64(v)], lanes))
                    store(best, [v], fmax(value, load(best, [v], lanes)))
            with loop(tirx.min(i64(PANEL), visible - p * PANEL)) as j:
                store(out, [block.row, h * spec.group + g, p * PANEL + j], load(best, [j]) * splat(spec.scale, 1))
