"""Causal attention of ragged sequences over the paged cache, for prefill, chunks and decode in one PrimFunc.

The slots of a sequence are cut into segments of a fixed number of pages. Each segment has its own online softmax
and segments are merged in order, for every query and whatever it came in with. So one query of a long sequence
can be spread over threads, and its result is still equal, bit for bit, to that of the same query in a prefill.

Sequences with one query in the step (decode) are spread over (segment, kv head); the others are cut into tiles of
query rows (tokens x heads of a group), which read each page while it is hot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.tvm.kernels.attention_state import Rows, RowStates
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
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
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.kv_pages import KvPages, WidePage
from fretsaw.backends.tvm.kernels.shares import Shares
from fretsaw.backends.tvm.kernels.softmax_block import PageBlock

# (rows, first row of a block, one past the last slot that each sees) -> where their windows begin, where sinks end
Spans = Callable[[Rows, Expr, list[Expr]], tuple[list[Expr], list[Expr]]]
_TASK_COST = 2  # what loading and storing a row costs, in pages
_STRIDE = 4  # decode tasks are dealt out in this stride, so that threads get segments of all lengths


@dataclass(frozen=True)
class AttentionSpec:
    """One attention kernel.

    Args:
        heads, kv_heads: H and Hkv; H is a multiple of Hkv.
        head_dim, value_dim: E and Ev (0 means E).
        scale: factor of the scores (0 means E ** -0.5).
        page: P, slots in a page, a multiple of 16.
        window: a query sees only the last ``window`` slots, its own included; 0 means all.
        soft_cap: ``cap * tanh(score / cap)`` where not zero.
        sinks: one more logit per head in the denominator.
        causal: False lets a query see its whole sequence (encoders).
        segment: pages per segment; results for one value are not bit-equal to those for another.
        kv: how the pages are stored.
        lse: also give the logarithm of each row's sum of exponentials, sinks included.
    """

    heads: int
    kv_heads: int
    head_dim: int
    isa: Isa
    value_dim: int = 0
    scale: float = 0.0
    page: int = 64
    window: int = 0
    soft_cap: float = 0.0
    sinks: bool = False
    causal: bool = True
    segment: int = 8
    kv: KvType = "f32"
    lse: bool = False
    name: str = "attention"

    @property
    def group(self) -> int:
        """Query heads per kv head."""
        return self.heads // self.kv_heads

    @property
    def values(self) -> int:
        """Ev, the width of a value head."""
        return self.value_dim or self.head_dim

    @property
    def factor(self) -> float:
        """The factor of the scores."""
        return self.scale or self.head_dim**-0.5

    @property
    def tile_tokens(self) -> int:
        """Query tokens in a prefill tile: about 96 rows, fewer where heads are wide."""
        rows = 96 if max(self.head_dim, self.values) <= 128 else 48
        return max(1, rows // self.group)


@dataclass(frozen=True)
class Cache:
    """The buffers of a call."""

    q: Buffer
    pages: KvPages
    table: Buffer
    lens: Buffer
    cu: Buffer
    sinks: Buffer | None
    out: Buffer
    lse: Buffer | None
    layer: Expr
    sequences: Expr
    table_width: Expr

    def start(self, b: Expr) -> Expr:
        """Return the first token of sequence ``b``."""
        return tirx.Cast("int64", load(self.cu, [b]))

    def count(self, b: Expr) -> Expr:
        """Return the number of tokens of sequence ``b`` in this step."""
        return self.start(b + 1) - self.start(b)

    def length(self, b: Expr, h: Expr) -> Expr:
        """Return the number of slots that were filled before this step."""
        return tirx.Cast("int64", load(self.lens, [self.layer, b, h]))

    def page_of(self, b: Expr, h: Expr, index: Expr) -> Expr:
        """Return the page that holds slots ``index * P ...``."""
        return tirx.Cast("int64", load(self.table, [self.layer, b, h, index]))


def attention(spec: AttentionSpec) -> tirx.PrimFunc:
    """Return the PrimFunc of attention.

    Arguments in order: ``q f32[T, H, E]``; ``k_pages f32[NP, E, P]``; ``v_pages f32[NP, P, Ev]``;
    ``table i32[L, B, Hkv, MAXP]``; ``lens i32[L, B, Hkv]`` (before this step); ``cu i32[B + 1]``; ``sinks f32[H]`` if
    asked; ``out f32[T, H * Ev]``; ``lse f32[T, H]`` if asked, natural logarithm; ``layer`` (int64). Pages in f16 have
    these shapes, int8 pages are bytes (``kv_storage``). The step's own keys and values must already be in the pages.
    """
    if spec.heads % spec.kv_heads or spec.page % 16:
        raise ValueError("attention: heads must be a multiple of kv_heads, page a multiple of 16")
    with kernel(spec.name) as k:
        t, b, pages, width, layers = dim("T"), dim("B"), dim("NP"), dim("MAXP"), dim("L")
        cache = Cache(
            q=k.arg("q", (t, spec.heads, spec.head_dim)),
            pages=KvPages.declare(k, spec.kv, pages, spec.head_dim, spec.values, spec.page),
            table=k.arg("table", (layers, b, spec.kv_heads, width), "int32"),
            lens=k.arg("lens", (layers, b, spec.kv_heads), "int32"),
            cu=k.arg("cu", (b + 1,), "int32"),
            sinks=k.arg("sinks", (spec.heads,)) if spec.sinks else None,
            out=k.arg("out", (t, spec.heads * spec.values)),
            lse=k.arg("lse", (t, spec.heads)) if spec.lse else None,
            layer=k.scalar("layer"),
            sequences=b,
            table_width=width,
        )
        plan = scratch((3,), "int64")  # tiles, segments of the longest decode, decoding sequences
        _plan(spec, cache, plan)
        with when(load(plan, [2]) > 0):
            decode(spec, cache, bind(load(plan, [1])))
        with when(load(plan, [0]) > 0):
            _prefill(spec, cache, t)
    return k.func


def _tiles(spec: AttentionSpec, count: Expr) -> Expr:
    """Return how many prefill tiles a sequence has; one with a single query has none."""
    return T.Select(count > 1, (count + spec.tile_tokens - 1) // spec.tile_tokens, i64(0))


def _plan(spec: AttentionSpec, cache: Cache, plan: Buffer) -> None:
    for i in range(3):
        store(plan, [i], i64(0))
    with loop(cache.sequences) as b:
        count = bind(cache.count(b))
        store(plan, [0], load(plan, [0]) + _tiles(spec, count))
        with when(count == 1):
            plan_decode(spec, cache, b, plan)


def plan_decode(spec: AttentionSpec, cache: Cache, b: Expr, plan: Buffer) -> None:
    """Note a decoding sequence: ``plan[1]`` is the number of segments of the longest, ``plan[2]`` of sequences."""
    span = spec.page * spec.segment
    store(plan, [2], load(plan, [2]) + 1)
    with loop(spec.kv_heads) as h:
        store(plan, [1], tirx.max(load(plan, [1]), (cache.length(b, h) + span) // span))


def over_page(
    block: PageBlock, rows: Rows, states: RowStates, page: Expr, base: Expr, wide: WidePage | None = None,
    spans: Spans | None = None,
) -> None:  # fmt: skip
    """Run the rows over one page, whose first slot is ``base``, widened into ``wide`` first if given.

    ``spans`` narrows what rows see, where given.
    """
    # One pass of all rows over the keys of a page and one over its values: each then stays in the first cache.
    for half in ("keys", "values"):
        if wide is not None:
            wide.fill_keys(page) if half == "keys" else wide.fill_values(page)
        with loop(rows.blocks) as j:
            row0 = bind(j * rows.height)
            low, high = rows.bounds(row0)
            seen = [base < high[-1]] if spans else [base < high[-1], base + block.page > low[0]]
            with when(tirx.all(*seen)):
                if half == "keys":
                    sink = None
                    if spans is not None:
                        low, sink = spans(rows, row0, high)
                    block.weigh(states.part, row0, page, base, low, high, sink)
                else:
                    block.gather(states.part, row0, page, base, high)


def _segment(
    spec: AttentionSpec, cache: Cache, rows: Rows, states: RowStates, segment: Expr, wide: WidePage | None = None
) -> None:
    """Run the rows over the pages of one segment that any of them sees, each widened into ``wide`` first if given."""
    first_page = segment * spec.segment
    begin = bind(tirx.max(first_page, rows.lowest() // spec.page))
    end = bind(tirx.min(first_page + spec.segment, (rows.highest() + spec.page - 1) // spec.page))
    pages = wide or cache.pages
    block = PageBlock(spec.isa, rows.height, spec.head_dim, spec.values, spec.page, spec.soft_cap, pages)
    with loop(tirx.max(end - begin, i64(0))) as i:
        index = bind(begin + i)
        base = bind(index * spec.page)
        page = bind(cache.page_of(rows.sequence, rows.kv_head, index))
        over_page(block, rows, states, page, base, wide)


def decode(spec: AttentionSpec, cache: Cache, segments: Expr) -> None:
    """Run the sequences with one query, each cut into ``segments`` that threads share."""
    group, kv = spec.group, spec.kv_heads
    pairs = bind(cache.sequences * kv)
    tasks = bind(pairs * segments)
    # Sized by what the page table can hold: an allocation is moved to the top, where only shapes are known.
    room = cache.sequences * kv * ((cache.table_width + spec.segment - 1) // spec.segment)
    parts = workspace((room, group, spec.values + 2))  # values, then maximum and sum
    share = bind((tasks + _STRIDE - 1) // _STRIDE)
    height = max(r for r in range(1, 7) if r <= group and -(-group // r) == -(-group // 6))
    with parallel(share * _STRIDE) as dealt:
        task = bind(dealt // share + dealt % share * _STRIDE)
        with when(task < tasks):
            b, h = bind(task // segments // kv), bind(task // segments % kv)
            with when(cache.count(b) == 1):
                rows = Rows(spec, cache, b, h, i64(0), i64(1), height, static_tokens=1)
                states = RowStates.allocate(spec, rows.padded)
                states.load_queries(spec, cache, rows)
                states.reset_part()
                _segment(spec, cache, rows, states, bind(task % segments))
                states.save(parts, task, group)
    with parallel(pairs) as pair:
        b, h = bind(pair // kv), bind(pair % kv)
        with when(cache.count(b) == 1):
            rows = Rows(spec, cache, b, h, i64(0), i64(1), height, static_tokens=1)
            states = RowStates.allocate(spec, rows.padded)
            states.reset_whole()
            with loop(segments) as s:
                states.restore(parts, pair * segments + s, group)
                states.merge(group)
            states.finish(spec, cache, rows)


@dataclass(frozen=True)
class _Tiles:
    """The prefill tiles of one head: sequence, first query, how many (none: unused), cost in pages."""

    places: Buffer
    room: Expr

    @staticmethod
    def cut(spec: AttentionSpec, cache: Cache, tokens: Expr) -> _Tiles:
        """Cut the sequences of a step of ``tokens`` tokens."""
        room = tokens // spec.tile_tokens + cache.sequences
        places, last = workspace((room, 4), "int64"), scratch((1,), "int64")
        with loop(room) as i:
            for column in range(4):
                store(places, [i, column], i64(0))
        store(last, [0], i64(0))
        with loop(cache.sequences) as b:
            count = bind(cache.count(b))
            with loop(_tiles(spec, count)) as i:
                first = bind(i * spec.tile_tokens)
                own = bind(tirx.min(i64(spec.tile_tokens), count - first))
                seen = cache.length(b, i64(0)) + (first + own if spec.causal else count)
                if spec.window:
                    seen = tirx.min(seen, i64(spec.window) + own)
                cost = bind(own * (seen // spec.page + _TASK_COST))
                for column, value in enumerate((b, first, own, cost)):
                    store(places, [load(last, [0]), column], value)
                store(last, [0], load(last, [0]) + 1)
        return _Tiles(places, room)

    def get(self, tile: Expr, column: int) -> Expr:
        return bind(load(self.places, [tile, column]))


def _prefill(spec: AttentionSpec, cache: Cache, tokens: Expr) -> None:
    """Run the sequences with several queries. Tiles differ in cost: shares of equal cost are dealt to threads."""
    span = spec.page * spec.segment
    tiles = _Tiles.cut(spec, cache, tokens)
    shares = Shares.lay(tiles.room * spec.kv_heads, lambda task: tiles.get(task % tiles.room, 3))
    with parallel(shares.count) as share:
        states = RowStates.allocate(spec, -(-spec.tile_tokens * spec.group // 6) * 6)
        wide = None if spec.kv == "f32" else WidePage.allocate(cache.pages, spec.isa.lanes)
        start, end = shares.bounds(share)
        with loop(end - start) as i:
            task = bind(start + i)
            tile = bind(task % tiles.room)
            own = tiles.get(tile, 2)
            with when(own > 0):
                rows = Rows(spec, cache, tiles.get(tile, 0), bind(task // tiles.room), tiles.get(tile, 1), own, 6)
                states.load_queries(spec, cache, rows)
                states.reset_whole()
                low, high = bind(rows.lowest() // span), bind((rows.highest() + span - 1) // span)
                with loop(high - low) as n:
                    states.reset_part()
                    _segment(spec, cache, rows, states, bind(low + n), wide)
                    states.merge(rows.padded)
                states.finish(spec, cache, rows)
