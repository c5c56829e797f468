"""Causal attention over the paged cache where each block of 64 queries reads only listed pages.

A task is a tile of queries within one query block (tokens x the heads that share a list and a kv head), over the pages
of its list. It keeps the order of :mod:`attention`: segments of pages, numbered from the start of the sequence, each
with a softmax of its own, merged in order. A list of all pages therefore gives the bits of dense attention, and a list
gives the same bits in any chunk, any batch and with any number of threads.

Lists differ in length. Tasks are laid on a line, each as long as its work, and the line is cut into equal shares.

Sequences with one query in the step see everything, in the dense kernel's way, or what is listed (:mod:`list_decode`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from tvm import tirx

from fretsaw.backends.tvm.kernels.attention import AttentionSpec, Cache, Spans, decode, over_page, plan_decode
from fretsaw.backends.tvm.kernels.attention_state import Rows, RowStates
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
from fretsaw.backends.tvm.kernels.kv_pages import KvPages, WidePage
from fretsaw.backends.tvm.kernels.shares import Shares
from fretsaw.backends.tvm.kernels.softmax_block import PageBlock
from fretsaw.ir.kv import BLOCK

_HEIGHT = 6  # query rows in a register block
_NO_WINDOW = 2**30  # more slots than a sequence has
_TASK_COST = 2  # what loading and storing a row costs, in pages


@dataclass(frozen=True)
class BlockAttentionSpec(AttentionSpec):
    """As :class:`AttentionSpec`, with a page of 64 slots and no window, and

    Args:
        lists: G, lists per query block; 0 means one for each kv head.
        first, last: per head, the slots that it sees of those listed: the first ones and the last ones of each query;
            () or a ``last`` of 0 means all.
        listed_decode: lists hold for sequences with one query in the step too.
    """

    lists: int = 0
    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    listed_decode: bool = False

    @property
    def groups(self) -> int:
        """G."""
        return self.lists or self.kv_heads

    @property
    def unit(self) -> int:
        """Heads in a task: all that share a list and a kv head, side by side."""
        return gcd(self.heads // self.groups, self.group)

    @property
    def units(self) -> int:
        """Tasks for one tile of tokens."""
        return self.heads // self.unit

    @property
    def pieces(self) -> int:
        """Tiles of a query block, of about 96 rows each, fewer where heads are wide."""
        rows = 96 if max(self.head_dim, self.values) <= 128 else 48
        return -(-BLOCK * self.unit // rows)

    @property
    def piece_tokens(self) -> int:
        """Most tokens of a tile."""
        return -(-BLOCK // self.pieces)


@dataclass(frozen=True)
class Lists:
    """The lists of a step: ``idx i32[QB, G, n]`` of which ``cnt i32[QB, G]`` count."""

    spec: BlockAttentionSpec
    idx: Buffer
    cnt: Buffer
    width: Expr

    def length(self, row: Expr, unit: Expr) -> Expr:
        """Return the entries of the list of some heads, from none to all that there is room for."""
        count = tirx.Cast("int64", load(self.cnt, [row, self._group(unit)]))
        return tirx.max(i64(0), tirx.min(count, self.width))

    def entry(self, row: Expr, unit: Expr, i: Expr) -> Expr:
        """Return entry ``i``, the number of a page in its sequence."""
        return tirx.Cast("int64", load(self.idx, [row, self._group(unit), i]))

    def _group(self, unit: Expr) -> Expr:
        return unit * self.spec.unit // (self.spec.heads // self.spec.groups)


def declare_spans(spec: BlockAttentionSpec) -> Spans | None:
    """Write the spans of heads to memory; None if there are none."""
    if not any(spec.last):
        return None
    table = workspace((2, spec.heads), "int32")
    for h in range(spec.heads):
        store(table, [0, h], i32(spec.last[h] or _NO_WINDOW))
        store(table, [1, h], i32(min(spec.first[h] if spec.first else 0, _NO_WINDOW)))

    def spans(rows: Rows, row0: Expr, high: list[Expr]) -> tuple[list[Expr], list[Expr]]:
        heads = [bind(rows.head(row0 + r)) for r in range(rows.height)]
        last, first = ([bind(tirx.Cast("int64", load(table, [i, h]))) for h in heads] for i in range(2))
        return [bind(tirx.max(i64(0), hi - n)) for hi, n in zip(high, last, strict=True)], first

    return spans


def block_attention(spec: BlockAttentionSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``q f32[T, H, E]``; pages, ``table``, ``lens`` and ``cu`` as in :func:`attention.attention`, a
    sequence having as many slots in every head; ``idx i32[QB, G, n]``; ``cnt i32[QB, G]``; ``sinks f32[H]`` if asked;
    ``out f32[T, H * Ev]``; ``lse f32[T, H]`` if asked; ``layer`` (int64). QB is at least ``T // 64 + 2 * B``, rows as
    in ``ir/kv.py``. Entries are ascending; those out of a query's reach are passed over, as are lists of rows without
    queries. A query that sees nothing gets zeros, and -inf as the logarithm.

    Raises:
        ValueError: heads that cannot be grouped, or pages that are no blocks.
    """
    if spec.heads % spec.kv_heads or spec.heads % spec.groups or spec.page != BLOCK or spec.window or not spec.causal:
        raise ValueError(
            f"block_attention: kv_heads and lists divide heads, pages have {BLOCK} slots, causal, no window"
        )
    with kernel(spec.name) as k:
        t, b, pages, width, layers, blocks, n = (dim(x) for x in ("T", "B", "NP", "MAXP", "L", "QB", "n"))
        q = k.arg("q", (t, spec.heads, spec.head_dim))
        pools = KvPages.declare(k, spec.kv, pages, spec.head_dim, spec.values, spec.page)
        table = k.arg("table", (layers, b, spec.kv_heads, width), "int32")
        lens, cu = k.arg("lens", (layers, b, spec.kv_heads), "int32"), k.arg("cu", (b + 1,), "int32")
        idx, cnt = k.arg("idx", (blocks, spec.groups, n), "int32"), k.arg("cnt", (blocks, spec.groups), "int32")
        sinks = k.arg("sinks", (spec.heads,)) if spec.sinks else None
        out = k.arg("out", (t, spec.heads * spec.values))
        lse = k.arg("lse", (t, spec.heads)) if spec.lse else None
        cache = Cache(q, pools, table, lens, cu, sinks, out, lse, k.scalar("layer"), b, width)
        lists = Lists(spec, idx, cnt, n)
        spans = declare_spans(spec)
        plan = scratch((3,), "int64")  # query blocks, segments of the longest decode, decoding sequences
        places = workspace((blocks, 5), "int64")
        _plan(spec, cache, plan, places, blocks)
        with when(load(plan, [2]) > 0):
            decode(spec, cache, bind(load(plan, [1])))
        with when(load(plan, [0]) > 0):
            _blocks(spec, cache, lists, spans, places, blocks)
    return k.func


_SEQUENCE, _NUMBER, _FIRST, _END, _BEFORE = range(5)  # columns of places


def _plan(spec: BlockAttentionSpec, cache: Cache, plan: Buffer, places: Buffer, blocks: Expr) -> None:
    """Say for each row of the lists which block of which sequence it is, and its queries [first, end)."""
    for i in range(3):
        store(plan, [i], i64(0))
    with loop(blocks) as r:
        store(places, [r, _FIRST], i64(0))
        store(places, [r, _END], i64(0))
    with loop(cache.sequences) as b:
        count, before = bind(cache.count(b)), bind(cache.length(b, i64(0)))
        if not spec.listed_decode:
            with when(count == 1):
                plan_decode(spec, cache, b, plan)
        with when(count > (0 if spec.listed_decode else 1)):
            store(plan, [0], load(plan, [0]) + 1)
            number = bind(before // BLOCK)
            row = bind(cache.start(b) // BLOCK + 2 * b)
            with loop((before + count + BLOCK - 1) // BLOCK - number) as i:
                at = bind((number + i) * BLOCK - before)  # of the block, counted from the sequence's first query
                values = (b, number + i, tirx.max(i64(0), at), tirx.min(count, at + BLOCK), at)
                for column, value in enumerate(values):
                    store(places, [row + i, column], value)


def _blocks(
    spec: BlockAttentionSpec, cache: Cache, lists: Lists, spans: Spans | None, places: Buffer, blocks: Expr
) -> None:
    """Run all query blocks that the places name."""
    tiles = bind(blocks * spec.pieces)

    def queries(task: Expr) -> tuple[Expr, Expr, Expr, Expr]:
        """The heads and the row of a task, its first query and how many it has."""
        unit, row = bind(task // tiles), bind(task % tiles // spec.pieces)
        at = bind(load(places, [row, _BEFORE]) + task % spec.pieces * spec.piece_tokens)
        first = bind(tirx.max(load(places, [row, _FIRST]), at))
        end = bind(tirx.min(load(places, [row, _END]), at + spec.piece_tokens))
        return unit, row, first, bind(tirx.max(i64(0), end - first))

    def cost(task: Expr) -> Expr:
        unit, row, _, tokens = queries(task)
        return tokens * (lists.length(row, unit) + _TASK_COST)

    shares = Shares.lay(blocks * (spec.pieces * spec.units), cost)
    with parallel(shares.count) as share:
        states = RowStates.allocate(spec, -(-spec.piece_tokens * spec.unit // _HEIGHT) * _HEIGHT)
        wide = None if spec.kv == "f32" else WidePage.allocate(cache.pages, spec.isa.lanes)
        begin, end = shares.bounds(share)
        with loop(end - begin) as i:
            unit, row, first, tokens = queries(bind(begin + i))
            with when(tokens > 0):
                b, head = bind(load(places, [row, _SEQUENCE])), bind(unit * spec.unit)
                rows = Rows(
                    spec, cache, b, bind(head // spec.group), first, tokens, _HEIGHT, spec.piece_tokens, spec.unit, head
                )
                states.load_queries(spec, cache, rows)
                states.reset_whole()
                over_list(spec, rows, states, lists, (row, unit, bind(load(places, [row, _NUMBER]))), wide, spans)
                states.finish(spec, cache, rows, blind=True)


def over_list(
    spec: BlockAttentionSpec, rows: Rows, states: RowStates, lists: Lists, place: tuple[Expr, Expr, Expr],
    wide: WidePage | None, spans: Spans | None,
) -> None:  # fmt: skip
    """Run the rows over the pages of a list. ``place``: the row and the heads of the list, the last page in reach."""
    row, unit, last = place
    cache = rows.cache
    pages = wide or cache.pages
    block = PageBlock(spec.isa, rows.height, spec.head_dim, spec.values, spec.page, spec.soft_cap, pages)
    used = bind(rows.blocks * rows.height)
    current = scratch((1,), "int64")  # the segment that the part's state is of
    store(current, [0], i64(-1))
    with loop(lists.length(row, unit)) as i:
        index = bind(lists.entry(row, unit, i))
        with when(tirx.all(index >= 0, index <= last)):
            segment = bind(index // spec.segment)
            with when(segment != load(current, [0])):
                with when(load(current, [0]) >= 0):
                    states.merge(used)
                states.reset_part()
                store(current, [0], segment)
            page = bind(cache.page_of(rows.sequence, rows.kv_head, index))
            over_page(block, rows, states, page, bind(index * spec.page), wide, spans)
    with when(load(current, [0]) >= 0):
        states.merge(used)
