"""Column and diagonal scores from the last queries of a sequence (``ir/ops/select_lines.py``).

A task is one head of one sequence: the weights of its last queries over all of its keys are made row by row, complete,
so their memory is rows * slots; a pass over them adds up columns, another diagonals.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.program.pack import PANEL
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
from fretsaw.backends.tvm.kernels.rows import for_columns
from fretsaw.backends.tvm.kernels.select_cache import NEVER, KeyCache, multiply, tiles_of
from fretsaw.backends.tvm.kernels.softmax_block import LOG2E, fold
from fretsaw.ir.kv import BLOCK


@dataclass(frozen=True)
class LineSpec:
    """One kernel.

    Args:
        rows: Most queries of a sequence that are attended to.
        decode: Score sequences with one token in the step, too.
    """

    heads: int
    kv_heads: int
    size: int
    rows: int
    scale: float
    isa: Isa
    kv: KvType = "f32"
    decode: bool = False
    name: str = "line_scores"


def line_scores(spec: LineSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``k_pages``, ``table``, ``lens``, ``cu``, ``q f32[T, H, E]``, ``layer`` (:class:`KeyCache`);
    ``columns`` and ``diagonals f32[B, H, 64 * KB]``.
    """
    room = tiles_of(spec.isa, spec.rows)
    with kernel(spec.name) as k:
        width = dim("KB")
        cache, q = KeyCache.declare(k, spec.kv, spec.kv_heads, spec.size, i64(0), width, spec.heads)
        assert q is not None
        step = cache.step
        columns, diagonals = (k.arg(x, (step.sequences, spec.heads, width * BLOCK)) for x in ("columns", "diagonals"))
        with parallel(step.sequences * spec.heads) as task:
            b, h = bind(task // spec.heads), bind(task % spec.heads)
            with loop(width * BLOCK) as c:
                store(columns, [b, h, c], splat(0.0, 1))
                store(diagonals, [b, h, c], splat(0.0, 1))
            with when(cache.scored(b, spec.decode)):
                x, weights = workspace((room, spec.size)), workspace((room, width * BLOCK))
                end = bind(step.end(b))
                rows = bind(tirx.min(i64(spec.rows), step.count(b)))
                load_queries(spec, q, x, bind(step.begin(b + 1) - rows), rows, h)
                held = bind((end + BLOCK - 1) // BLOCK)
                multiply_keys(spec, cache, x, weights, (b, bind(h * spec.kv_heads // spec.heads)), i64(0), held, rows)
                with loop(rows) as r:
                    position = bind(end - rows + r)
                    _weigh(spec, weights, r, position)
                    _add(spec, weights, r, position, columns, diagonals, [b, h])
    return k.func


def load_queries(spec: LineSpec, q: Buffer, x: Buffer, token: Expr, rows: Expr, h: Expr) -> None:
    """Copy queries with the factor of their scores; rows that fill a tile are zero."""
    factor = spec.scale * LOG2E
    with loop(x.ty.shape[0]) as r:
        with when(r < rows):
            for_columns(
                spec.size,
                spec.isa.lanes,
                lambda c, n: store(x, [r, c], load(q, [token + r, h, c], n) * splat(factor, n)),
            )
        with when(r >= rows):
            for_columns(spec.size, spec.isa.lanes, lambda c, n: store(x, [r, c], splat(0.0, n)))


def multiply_keys(
    spec: LineSpec, cache: KeyCache, x: Buffer, logits: Buffer, at: tuple[Expr, Expr], first: Expr, last: Expr,
    rows: Expr,
) -> None:  # fmt: skip
    """Write products of queries with the keys of blocks ``first ... last`` of a sequence and head, (b, h) = ``at``;
    column 0 of ``logits`` is the first block's first slot."""
    lanes, pages = spec.isa.lanes, cache.pages
    with loop(last - first) as j:
        page = cache.page(*at, bind(first + j))
        with loop(BLOCK // PANEL) as p:
            slot = bind(p * PANEL)

            def put(row: Expr, col: int, value: Expr) -> None:
                scale = pages.key_scales(page, slot + col, lanes)
                store(logits, [row, j * BLOCK + slot + col], value if scale is None else value * scale)

            multiply(
                spec.isa, rows, spec.size, x, lambda k, col: pages.keys(page, k, slot + col, lanes), put
            )  # fmt: skip


def _weigh(spec: LineSpec, weights: Buffer, r: Expr, position: Expr) -> None:
    """Turn the logits of a row into weights; those of slots after it are zero, up to the end of a vector."""
    lanes = spec.isa.lanes
    vectors = bind((position + lanes) // lanes)  # of position + 1 slots
    best, total = scratch((lanes,)), scratch((lanes,))
    store(best, [0], splat(NEVER, lanes))
    store(total, [0], splat(0.0, lanes))
    tail = bind(vectors - 1)
    limit = bind(tirx.Cast("int32", position + 1 - tail * lanes))
    exists = tirx.Ramp(i32(0), i32(1), lanes) < tirx.Broadcast(limit, lanes)
    last = bind(load(weights, [r, tail * lanes], lanes))
    store(weights, [r, tail * lanes], select(exists, last, splat(NEVER, lanes)))
    with loop(vectors) as v:
        store(best, [0], fmax(bind(load(weights, [r, v * lanes], lanes)), load(best, [0], lanes)))
    top = bind(fold(bind(load(best, [0], lanes)), fmax))
    with loop(vectors) as v:
        e = bind(math.exp2_nonpositive(load(weights, [r, v * lanes], lanes) - splat(top, lanes)))
        store(weights, [r, v * lanes], e)
        store(total, [0], load(total, [0], lanes) + e)
    store(weights, [r, tail * lanes], select(exists, load(weights, [r, tail * lanes], lanes), splat(0.0, lanes)))
    share = bind(splat(1.0, 1) / fold(bind(load(total, [0], lanes)), lambda a, b: a + b))
    with loop(vectors) as v:
        store(weights, [r, v * lanes], load(weights, [r, v * lanes], lanes) * splat(share, lanes))


def _add(
    spec: LineSpec, weights: Buffer, r: Expr, position: Expr, columns: Buffer, diagonals: Buffer, head: list[Expr]
) -> None:
    lanes = spec.isa.lanes
    with loop((position + lanes) // lanes) as v:
        c = bind(v * lanes)
        store(columns, [*head, c], load(columns, [*head, c], lanes) + load(weights, [r, c], lanes))
    with loop(position + 1) as d:
        store(diagonals, [*head, d], load(diagonals, [*head, d]) + load(weights, [r, position - d]))
