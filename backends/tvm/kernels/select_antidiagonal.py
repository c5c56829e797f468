"""Attention mass of key blocks estimated from antidiagonals (XAttention), ``ir/ops/select_scores.py``.

A cell of ``stride`` keys is one column of a GEMM of depth stride * E, a cell of queries (rows reversed, already
divided by how many there are) one of its rows: 1 / (2 * stride) of what dense attention computes. The keys of a head
are repacked once per call into panels of 16 cells. A task takes the cells of a few query blocks and all heads of a
group over the panels up to its last cell, a stretch of ``_STRETCH`` cells at a time. Of each stretch every row keeps
two numbers per block, the largest logit and the sum of exponentials below it; the cell matrix is never kept.

A row's numbers come from its own sequence in a fixed order: they are the same bits in any batch, with any threads.
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
from fretsaw.backends.tvm.kernels.softmax_block import EMPTY, LOG2E, fold
from fretsaw.ir.kv import BLOCK

_STRETCH = 256  # cells, whole blocks for every stride
_ROWS = 48  # of a task, about


@dataclass(frozen=True)
class AntidiagonalSpec:
    """One kernel.

    Args:
        stride: Positions in a cell, a divisor of 64.
        norm: Logits are divided by it.
        decode: Score sequences with one token in the step, too.
    """

    heads: int
    kv_heads: int
    size: int
    stride: int
    scale: float
    isa: Isa
    norm: float = 1.0
    kv: KvType = "f32"
    decode: bool = False
    name: str = "antidiagonal_scores"

    @property
    def group(self) -> int:
        """Query heads per head of keys."""
        return self.heads // self.kv_heads

    @property
    def cells(self) -> int:
        """Cells in a block."""
        return BLOCK // self.stride

    @property
    def depth(self) -> int:
        """Elements of a cell."""
        return self.stride * self.size

    @property
    def blocks(self) -> int:
        """Query blocks in a task."""
        return max(1, min(4, _ROWS // (self.group * self.cells)))

    @property
    def rows(self) -> int:
        """Rows of a task: cells x heads of a group, and what fills the last register tile."""
        return tiles_of(self.isa, self.blocks * self.cells * self.group)


@dataclass(frozen=True)
class _Task:
    """Some query blocks of one sequence and the heads of one group."""

    spec: AntidiagonalSpec
    cache: KeyCache
    b: Expr
    kv_head: Expr
    first_block: Expr
    blocks: Expr
    start: Expr
    end: Expr

    @property
    def last_cell(self) -> Expr:
        """The last cell that a query of the task is in."""
        edge = tirx.min(self.end, (self.first_block + self.blocks) * BLOCK)
        return (edge - 1) // self.spec.stride

    def cell(self, row: Expr) -> Expr:
        """Return the cell of a row."""
        return self.first_block * self.spec.cells + row // self.spec.group

    def queries(self, cell: Expr) -> tuple[Expr, Expr]:
        """Return one past the position of a cell's last query in the step, and how many it has there."""
        low = tirx.max(self.start, cell * self.spec.stride)
        high = bind(tirx.min(self.end, (cell + 1) * self.spec.stride))
        return high, bind(tirx.max(i64(0), high - low))


def antidiagonal(spec: AntidiagonalSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``k_pages``, ``table``, ``lens``, ``cu``, ``q f32[T, H, E]``, ``layer`` (:class:`KeyCache`);
    ``out f32[QB, H, KB]``.
    """
    with kernel(spec.name) as k:
        rows, width = dim("QB"), dim("KB")
        cache, q = KeyCache.declare(k, spec.kv, spec.kv_heads, spec.size, rows, width, spec.heads)
        assert q is not None
        out = k.arg("out", (rows, spec.heads, width))
        step = cache.step
        with parallel(rows) as row, loop(spec.heads) as h:
            fill(out, [row, h], i64(0), width, NEVER)
        panels = workspace(((width * spec.cells + PANEL - 1) // PANEL, spec.depth, PANEL))
        with loop(step.sequences) as b, when(cache.scored(b, spec.decode)):
            blocks = bind(step.blocks(b))
            tasks = bind((blocks + spec.blocks - 1) // spec.blocks)
            start, end = bind(step.before(b)), bind(step.end(b))
            with loop(spec.kv_heads) as h:
                with parallel((end + BLOCK - 1) // BLOCK) as j:
                    _pack(spec, cache, panels, cache.page(b, h, j), j, end)
                with parallel(tasks) as at:
                    # Late tasks see many keys: taken from both ends in turn, any contiguous share costs the same.
                    piece = bind(T.Select(at % 2 == 0, at // 2, tasks - 1 - at // 2))
                    first = bind(start // BLOCK + piece * spec.blocks)
                    own = bind(tirx.min(i64(spec.blocks), blocks - piece * spec.blocks))
                    _score(_Task(spec, cache, b, h, first, own, start, end), q, panels, out)
    return k.func


def _pack(spec: AntidiagonalSpec, cache: KeyCache, panels: Buffer, page: Expr, j: Expr, end: Expr) -> None:
    """Copy a page of keys to its cells; slots that hold none yet are zero, as they meet queries that are zero."""
    used = bind(end - j * BLOCK)
    some = min(spec.cells, PANEL)
    with loop(spec.cells // some) as part:
        cell = bind(j * spec.cells + part * some)
        panel, lane = bind(cell // PANEL), bind(cell % PANEL)
        with loop(spec.stride) as t, loop(spec.size) as e:
            for u in range(some):
                slot = bind((part * some + u) * spec.stride + t)
                value = bind(cache.keys(page, e, slot))
                store(panels, [panel, t * spec.size + e, lane + u], select(slot < used, value, splat(0.0, 1)))


def _score(task: _Task, q: Buffer, panels: Buffer, out: Buffer) -> None:
    spec, width = task.spec, task.cache.width
    x = workspace((spec.rows, spec.depth))
    logits = workspace((spec.rows, _STRETCH))
    tops = workspace((spec.rows, width + spec.isa.lanes))
    sums = workspace((spec.rows, width + spec.isa.lanes))
    rows = bind(task.blocks * (spec.cells * spec.group))
    _load_queries(task, q, x)
    last = bind(task.last_cell)
    with loop(last // _STRETCH + 1) as s:
        base = bind(s * _STRETCH)
        count = bind(tirx.min(i64(_STRETCH), last + 1 - base))
        with loop((count + PANEL - 1) // PANEL) as p:
            panel = bind(base // PANEL + p)
            multiply(
                spec.isa, rows, spec.depth, x,
                lambda k, col: load(panels, [panel, k, col], spec.isa.lanes),
                lambda row, col, value: store(logits, [row, p * PANEL + col], value),
            )  # fmt: skip
        with loop(rows) as r:
            _keep_blocks(task, logits, tops, sums, r, base)
    _finish(task, tops, sums, out)


def _load_queries(task: _Task, q: Buffer, x: Buffer) -> None:
    spec = task.spec
    with loop(spec.rows) as r:
        high, count = task.queries(bind(task.cell(r)))
        count = bind(T.Select(r // spec.group < task.blocks * spec.cells, count, i64(0)))
        head = bind(task.kv_head * spec.group + r % spec.group)
        token = bind(task.cache.step.begin(task.b) + high - 1 - task.start)
        factor = bind(splat(spec.scale * LOG2E / spec.norm, 1) / tirx.Cast("float32", tirx.max(count, i64(1))))
        with loop(spec.stride) as t:
            with when(t < count):
                for_columns(
                    spec.size,
                    spec.isa.lanes,
                    lambda c, n: store(x, [r, t * spec.size + c], load(q, [token - t, head, c], n) * splat(factor, n)),
                )
            with when(t >= count):
                for_columns(spec.size, spec.isa.lanes, lambda c, n: store(x, [r, t * spec.size + c], splat(0.0, n)))


def _keep_blocks(task: _Task, logits: Buffer, tops: Buffer, sums: Buffer, r: Expr, base: Expr) -> None:
    """Of each block in a stretch that a row sees: its largest logit, and the sum of exponentials below that."""
    spec = task.spec
    lanes = min(spec.isa.lanes, spec.cells)
    vectors = spec.cells // lanes
    cell = bind(task.cell(r))
    first = bind(base // spec.cells)
    seen = bind(tirx.min(i64(_STRETCH // spec.cells), cell // spec.cells + 1 - first))
    with loop(tirx.max(i64(0), seen)) as i:
        at = bind(i * spec.cells)
        limit = bind(tirx.Cast("int32", tirx.min(cell + 1 - base - at, i64(spec.cells))))
        parts = []
        for v in range(vectors):
            value = bind(load(logits, [r, at + v * lanes], lanes))
            if lanes == 1:
                exists = i32(v) < limit
            else:
                exists = tirx.Ramp(i32(v * lanes), i32(1), lanes) < tirx.Broadcast(limit, lanes)
            parts.append(bind(select(exists, value, splat(NEVER, lanes))))
        best = parts[0]
        for part in parts[1:]:
            best = bind(fmax(part, best))
        top = bind(fold(best, fmax))
        total = splat(0.0, lanes)
        for part in parts:
            total = bind(total + math.exp2_nonpositive(part - splat(top, lanes)))
        store(tops, [r, first + i], top)
        store(sums, [r, first + i], fold(total, lambda a, b: a + b))


def _finish(task: _Task, tops: Buffer, sums: Buffer, out: Buffer) -> None:
    """Give every row mass one and add it up over the rows of a query block and a head."""
    spec, lanes = task.spec, task.spec.isa.lanes
    mass = workspace((task.cache.width + lanes,))
    row0 = bind(task.cache.step.first_row(task.b) - task.start // BLOCK + task.first_block)
    with loop(task.blocks) as i, loop(spec.group) as g:
        head, block = bind(task.kv_head * spec.group + g), bind(task.first_block + i)
        vectors = bind((block + lanes) // lanes)  # of block + 1 blocks
        with loop(vectors) as v:
            store(mass, [v * lanes], splat(0.0, lanes))
        with loop(spec.cells) as c:
            r = bind((i * spec.cells + c) * spec.group + g)
            _, count = task.queries(bind(task.cell(r)))
            with when(count > 0):
                fill(tops, [r], block + 1, vectors * lanes, EMPTY)
                fill(sums, [r], block + 1, vectors * lanes, 0.0)
                _add_row(spec, tops, sums, mass, r, vectors)
        with loop(tirx.min(task.cache.width, block + 1)) as j:
            store(out, [row0 + i, head, j], load(mass, [j]))


def _add_row(spec: AntidiagonalSpec, tops: Buffer, sums: Buffer, mass: Buffer, r: Expr, vectors: Expr) -> None:
    lanes = spec.isa.lanes
    best, total = scratch((lanes,)), scratch((lanes,))
    store(best, [0], splat(EMPTY, lanes))
    store(total, [0], splat(0.0, lanes))
    with loop(vectors) as v:
        store(best, [0], fmax(bind(load(tops, [r, v * lanes], lanes)), load(best, [0], lanes)))
    top = bind(fold(bind(load(best, [0], lanes)), fmax))
    with loop(vectors) as v:
        e = bind(math.exp2_nonpositive(load(tops, [r, v * lanes], lanes) - splat(top, lanes)))
        store(sums, [r, v * lanes], load(sums, [r, v * lanes], lanes) * e)
        store(total, [0], load(total, [0], lanes) + load(sums, [r, v * lanes], lanes))
    share = bind(splat(1.0, 1) / fold(bind(load(total, [0], lanes)), lambda a, b: a + b))
    with loop(vectors) as v:
        added = load(sums, [r, v * lanes], lanes) * splat(share, lanes)
        store(mass, [v * lanes], load(mass, [v * lanes], lanes) + added)
