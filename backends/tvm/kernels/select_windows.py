"""Block scores from a softmax over means of overlapping windows of keys (``ir/ops/select_windows.py``, InfLLM-V2).

The means of a head of keys are made once per call, in panels of 16 windows. A task is one query block and one head of
keys; it takes a few queries at a time with all heads of their group over all windows that they see.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

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
from fretsaw.backends.tvm.kernels.select_cache import NEVER, KeyCache, fill, multiply, tiles_of
from fretsaw.backends.tvm.kernels.select_step import QueryBlock
from fretsaw.backends.tvm.kernels.softmax_block import LOG2E, fold
from fretsaw.ir.kv import BLOCK


@dataclass(frozen=True)
class WindowSpec:
    """One kernel.

    Args:
        window, stride: Keys in a mean, and from one to the next; the stride divides the window and 64.
        decode: Score sequences with one token in the step, too.
    """

    heads: int
    kv_heads: int
    size: int
    window: int
    stride: int
    scale: float
    isa: Isa
    kv: KvType = "f32"
    decode: bool = False
    name: str = "compressed_scores"

    @property
    def group(self) -> int:
        """Query heads per head of keys."""
        return self.heads // self.kv_heads

    @property
    def tokens(self) -> int:
        """Queries at a time: about two register tiles of rows."""
        return max(1, 2 * self.isa.rows // self.group)

    @property
    def rows(self) -> int:
        """Rows at a time, with those that fill the last tile."""
        return tiles_of(self.isa, self.tokens * self.group)

    def seen(self, position: Expr) -> Expr:
        """Return how many windows end at or before a position."""
        return tirx.max(i64(0), tirx.floordiv(position + 1 - self.window, i64(self.stride)) + 1)


def compressed_scores(spec: WindowSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``k_pages``, ``table``, ``lens``, ``cu``, ``q f32[T, H, E]``, ``layer`` (:class:`KeyCache`);
    ``out f32[QB, K, KB]``.
    """
    with kernel(spec.name) as k:
        rows, width = dim("QB"), dim("KB")
        cache, q = KeyCache.declare(k, spec.kv, spec.kv_heads, spec.size, rows, width, spec.heads)
        assert q is not None
        out = k.arg("out", (rows, spec.kv_heads, width))
        step = cache.step
        with parallel(rows) as row, loop(spec.kv_heads) as h:
            fill(out, [row, h], i64(0), width, NEVER)
        most = width * (BLOCK // spec.stride)
        means = workspace(((most + PANEL - 1) // PANEL, spec.size, PANEL))
        with loop(step.sequences) as b, when(cache.scored(b, spec.decode)):
            end, blocks = bind(step.end(b)), bind(step.blocks(b))
            windows = bind(spec.seen(end - 1))
            with loop(spec.kv_heads) as h:
                with parallel((windows + PANEL - 1) // PANEL) as p:
                    _pack(spec, cache, means, b, h, p, windows)
                with parallel(blocks) as at:
                    piece = bind(T.Select(at % 2 == 0, at // 2, blocks - 1 - at // 2))
                    block = step.block(bind(step.first_row(b) + piece), b)
                    visible = bind(tirx.min(width, block.block + 1))
                    fill(out, [block.row, h], i64(0), visible, 0.0)
                    _score(spec, block, q, means, out, h, visible, most)
    return k.func


def _pack(spec: WindowSpec, cache: KeyCache, means: Buffer, b: Expr, h: Expr, panel: Expr, windows: Expr) -> None:
    share = splat(1.0 / spec.window, 1)
    total = scratch((1,))
    with loop(spec.size) as e, loop(PANEL) as lane:
        w = bind(panel * PANEL + lane)
        store(total, [0], splat(0.0, 1))
        with loop(T.Select(w < windows, i64(spec.window), i64(0))) as i:
            slot = bind(w * spec.stride + i)
            page = cache.page(b, h, slot // BLOCK)
            store(total, [0], load(total, [0]) + cache.keys(page, e, slot % BLOCK))
        store(means, [panel, e, lane], load(total, [0]) * share)


def _score(
    spec: WindowSpec, block: QueryBlock, q: Buffer, means: Buffer, out: Buffer, h: Expr, visible: Expr, most: Expr
) -> None:
    lanes = spec.isa.lanes
    x = workspace((spec.rows, spec.size))
    logits, mass = workspace((spec.rows, most + 2 * PANEL)), workspace((most + 2 * PANEL,))
    with loop((block.count + spec.tokens - 1) // spec.tokens) as part:
        first = bind(part * spec.tokens)
        tokens = bind(tirx.min(i64(spec.tokens), block.count - first))
        seen_last = bind(spec.seen(block.first + first + tokens - 1))
        with loop(spec.rows) as r:
            # Rows without a query of their own repeat the last one: nobody reads what they give.
            token = bind(block.token + first + tirx.min(r // spec.group, tokens - 1))
            head = bind(h * spec.group + r % spec.group)
            for_columns(
                spec.size,
                lanes,
                lambda c, n: store(x, [r, c], load(q, [token, head, c], n) * splat(spec.scale * LOG2E, n)),
            )
        with loop((seen_last + PANEL - 1) // PANEL) as p:
            multiply(
                spec.isa, tokens * spec.group, spec.size, x, lambda k, col: load(means, [p, k, col], lanes),
                lambda row, col, value: store(logits, [row, p * PANEL + col], value),
            )  # fmt: skip
        with loop(tokens) as i:
            seen = bind(spec.seen(block.first + first + i))
            with when(seen > 0):
                vectors = bind((seen + lanes - 1) // lanes)
                with loop(vectors) as v:
                    store(mass, [v * lanes], splat(0.0, lanes))
                with loop(spec.group) as g:
                    _add_softmax(spec, logits, mass, bind(i * spec.group + g), seen, vectors)
                _raise_blocks(spec, mass, out, [block.row, h], seen, visible)


def _add_softmax(spec: WindowSpec, logits: Buffer, mass: Buffer, r: Expr, seen: Expr, vectors: Expr) -> None:
    """Add the softmax of a row over the windows it sees to the mass of its query."""
    lanes = spec.isa.lanes
    best, total = scratch((lanes,)), scratch((lanes,))
    store(best, [0], splat(NEVER, lanes))
    store(total, [0], splat(0.0, lanes))
    tail = bind(vectors - 1)
    limit = bind(tirx.Cast("int32", seen - tail * lanes))
    exists = tirx.Ramp(i32(0), i32(1), lanes) < tirx.Broadcast(limit, lanes)
    last = bind(load(logits, [r, tail * lanes], lanes))
    store(logits, [r, tail * lanes], select(exists, last, splat(NEVER, lanes)))
    with loop(vectors) as v:
        store(best, [0], fmax(bind(load(logits, [r, v * lanes], lanes)), load(best, [0], lanes)))
    top = bind(fold(bind(load(best, [0], lanes)), fmax))
    with loop(vectors) as v:
        e = bind(math.exp2_nonpositive(load(logits, [r, v * lanes], lanes) - splat(top, lanes)))
        store(logits, [r, v * lanes], e)
        store(total, [0], load(total, [0], lanes) + e)
    share = bind(splat(1.0, 1) / fold(bind(load(total, [0], lanes)), lambda a, b: a + b))
    with loop(vectors) as v:
        added = load(logits, [r, v * lanes], lanes) * splat(share, lanes)
        store(mass, [v * lanes], load(mass, [v * lanes], lanes) + added)


def _raise_blocks(spec: WindowSpec, mass: Buffer, out: Buffer, at: list[Expr], seen: Expr, visible: Expr) -> None:
    """Raise the score of every block to the largest mass of a window that touches it."""
    each = BLOCK // spec.stride
    before = (spec.window - 1) // spec.stride  # windows that begin before a block and reach into it
    best = scratch((1,))
    with loop(visible) as j:
        low = bind(tirx.max(i64(0), j * each - before))
        high = bind(tirx.min(seen, (j + 1) * each))
        store(best, [0], load(out, [*at, j]))
        with loop(tirx.max(i64(0), high - low)) as w:
            m = bind(load(mass, [low + w]))
            store(best, [0], fmax(m, load(best, [0])))
        store(out, [*at, j], load(best, [0]))
