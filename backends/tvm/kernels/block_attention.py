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

from tvm import tirx

from fretsaw.backends.tvm.kernels.attention import Cache, Spans, decode, over_page, plan_decode
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
from fretsaw.backends.tvm.kernels.list_decode import list_decode
from fretsaw.backends.tvm.kernels.query_tiles import ListedSpec, Lists, QueryTiles, Tile
from fretsaw.backends.tvm.kernels.shares import Shares
from fretsaw.backends.tvm.kernels.softmax_block import PageBlock

_HEIGHT = 6  # query rows in a register block
_NO_WINDOW = 2**30  # more slots than a sequence has
_TASK_COST = 2  # what loading and storing a row costs, in pages


@dataclass(frozen=True)
class BlockAttentionSpec(ListedSpec):
    """As :class:`ListedSpec`, and

    Args:
        first, last: per head, the slots that it sees of those listed: the first ones and the last ones of each query;
            () or a ``last`` of 0 means all.
    """

    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()


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
    spec.check()
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
        plan = scratch((3,), "int64")  # sequences in tiles, segments of the longest decode, decoding sequences
        tiles = QueryTiles.allocate(spec, blocks)
        _plan(spec, cache, plan, tiles)
        with when(load(plan, [2]) > 0):
            segments = bind(load(plan, [1]))
            list_decode(spec, cache, lists, spans, segments) if spec.listed_decode else decode(spec, cache, segments)
        with when(load(plan, [0]) > 0):
            _tiles(spec, cache, lists, spans, tiles)
    return k.func


def _plan(spec: BlockAttentionSpec, cache: Cache, plan: Buffer, tiles: QueryTiles) -> None:
    """Divide the sequences into those with one query and those with more."""
    for i in range(3):
        store(plan, [i], i64(0))
    with loop(cache.sequences) as b:
        count = bind(cache.count(b))
        with when(count == 1):
            plan_decode(spec, cache, b, plan)
        with when(count > 1):
            store(plan, [0], load(plan, [0]) + 1)
            tiles.add(cache, b, i64(0))


def _tiles(spec: BlockAttentionSpec, cache: Cache, lists: Lists, spans: Spans | None, tiles: QueryTiles) -> None:
    def cost(task: Expr) -> Expr:
        tile = tiles.tile(task)
        return tile.tokens * (lists.length(tile.row, tile.unit) + _TASK_COST)

    shares = Shares.lay(tiles.count, cost)
    with parallel(shares.count) as share:
        states = RowStates.allocate(spec, -(-spec.piece_tokens * spec.unit // _HEIGHT) * _HEIGHT)
        wide = None if spec.kv == "f32" else WidePage.allocate(cache.pages, spec.isa.lanes)
        begin, end = shares.bounds(share)
        with loop(end - begin) as i:
            tile = tiles.tile(bind(begin + i))
            with when(tile.tokens > 0):
                head = bind(tile.unit * spec.unit)
                rows = Rows(
                    spec, cache, tiles.sequence(tile), bind(head // spec.group), tile.first, tile.tokens, _HEIGHT,
                    spec.piece_tokens, spec.unit, head,
                )  # fmt: skip
                states.load_queries(spec, cache, rows)
                states.reset_whole()
                over_list(spec, rows, states, lists, tile, tiles.number(tile), wide, spans)
                states.finish(spec, cache, rows, blind=True)


def over_list(
    spec: BlockAttentionSpec, rows: Rows, states: RowStates, lists: Lists, tile: Tile, last: Expr,
    wide: WidePage | None, spans: Spans | None,
) -> None:  # fmt: skip
    """Run the rows of a tile over the pages of its list, up to page ``last``."""
    cache = rows.cache
    pages = wide or cache.pages
    block = PageBlock(spec.isa, rows.height, spec.head_dim, spec.values, spec.page, spec.soft_cap, pages)
    used = bind(rows.blocks * rows.height)
    current = scratch((1,), "int64")  # the segment that the part's state is of
    store(current, [0], i64(-1))
    with loop(lists.length(tile.row, tile.unit)) as i:
        index = bind(lists.entry(tile.row, tile.unit, i))
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
