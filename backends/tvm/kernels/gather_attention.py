"""Causal attention over the paged cache where each block of 64 queries reads listed tokens.

The listed keys and values are copied, 64 at a time, into a page of their own, scales applied, and the tile's rows run
over it as over any page (:mod:`softmax_block`). Lists ascend, so a query sees the first so many of its block's list:
their number takes the place of its position. Tiles and shares are those of :mod:`block_attention`.

With a distance, keys are turned back to slot 0 as they are copied, and the queries of a tile to slot ``distance``.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels.attention import Cache, over_page
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
from fretsaw.backends.tvm.kernels.kv_pages import KvPages
from fretsaw.backends.tvm.kernels.query_tiles import ListedSpec, Lists, QueryTiles, Tile
from fretsaw.backends.tvm.kernels.rows import for_columns
from fretsaw.backends.tvm.kernels.select_turn import angles, pair_of, turn
from fretsaw.backends.tvm.kernels.shares import Shares, lower_bound
from fretsaw.backends.tvm.kernels.softmax_block import PageBlock
from fretsaw.ir.kv import BLOCK

_HEIGHT = 6  # query rows in a register block


@dataclass(frozen=True)
class GatherSpec(ListedSpec):
    """As :class:`ListedSpec`, and

    Args:
        distance: Slots that listed keys seem to stand before the query; 0: where they are.
        layout: Of the rotary embedding, half or interleaved.
    """

    distance: int = 0
    layout: str = "half"


Table = tuple[Buffer, Buffer]  # cosines and sines [n, E / 2]


@dataclass(frozen=True)
class _Turns:
    """Angles of slots as sums of two, so that few of them are computed: of blocks, of slots in one, of the distance."""

    spec: GatherSpec
    blocks: Table
    within: Table
    distance: Table

    @staticmethod
    def lay(spec: GatherSpec, freq: Buffer, width: Expr) -> _Turns:
        """Write the tables, for sequences of up to ``width`` blocks."""
        half = spec.head_dim // 2
        blocks, within, distance = ((workspace((n, half)), workspace((n, half))) for n in (width, BLOCK, 1))
        with loop(width) as j:
            angles(bind(j * BLOCK), freq, half, *blocks, [j])
        with loop(BLOCK) as r:
            angles(r, freq, half, *within, [r])
        angles(i64(spec.distance), freq, half, *distance, [i64(0)])
        return _Turns(spec, blocks, within, distance)

    def of(self, slot: Expr, c: Expr, n: int = 1) -> tuple[Expr, Expr]:
        """Return cosine and sine of a slot's angle for ``n`` pairs from ``c`` on."""
        (a, b), (x, y) = self._at(self.blocks, slot // BLOCK, c, n), self._at(self.within, slot % BLOCK, c, n)
        return bind(a * x - b * y), bind(b * x + a * y)

    def left(self, slot: Expr, c: Expr, n: int) -> tuple[Expr, Expr]:
        """Return those of the distance less the slot."""
        (a, b), (x, y) = self._at(self.distance, i64(0), c, n), self.of(slot, c, n)
        return bind(a * x + b * y), bind(b * x - a * y)

    def _at(self, table: Table, row: Expr, c: Expr, n: int) -> list[Expr]:
        place = bind(row)
        return [bind(load(t, [place, c], n)) for t in table]


@dataclass(frozen=True)
class _SeenRows(Rows):
    """Rows that see the first ``seen[token]`` slots."""

    seen: Buffer | None = None

    def _seen(self, token: Expr) -> tuple[Expr, Expr]:
        assert self.seen is not None
        return i64(0), bind(load(self.seen, [token]))


def gather_attention(spec: GatherSpec) -> tirx.PrimFunc:
    """Return the PrimFunc; ``spec.lse`` must be set, ``spec.sinks`` must not.

    Arguments in order: ``q f32[T, H, E]``; pages, ``table``, ``lens`` and ``cu`` as in :func:`attention.attention`, a
    sequence having as many slots in every head; ``ids i32[QB, G, N]``, positions; ``cnt i32[QB, G]``; with a distance
    ``inv_freq f32[E/2]``; ``out f32[T, H * Ev]``; ``lse f32[T, H]``; ``layer`` (int64). Rows of lists as in
    :mod:`block_attention`. Positions that a query cannot see are passed over. A query that sees nothing, which is every
    one of a sequence with one query in the step unless ``listed_decode``, gets zeros and -inf.

    Raises:
        ValueError: heads that cannot be grouped, pages that are no blocks, sinks, or no logarithms.
    """
    spec.check()
    if spec.sinks or not spec.lse:
        raise ValueError("gather_attention: gives logarithms, and sinks belong to what it is merged with")
    with kernel(spec.name) as k:
        t, b, pages, width, layers, blocks, n = (dim(x) for x in ("T", "B", "NP", "MAXP", "L", "QB", "N"))
        q = k.arg("q", (t, spec.heads, spec.head_dim))
        pools = KvPages.declare(k, spec.kv, pages, spec.head_dim, spec.values, spec.page)
        table = k.arg("table", (layers, b, spec.kv_heads, width), "int32")
        lens, cu = k.arg("lens", (layers, b, spec.kv_heads), "int32"), k.arg("cu", (b + 1,), "int32")
        ids, cnt = k.arg("ids", (blocks, spec.groups, n), "int32"), k.arg("cnt", (blocks, spec.groups), "int32")
        freq = k.arg("inv_freq", (spec.head_dim // 2,)) if spec.distance else None
        out, lse = k.arg("out", (t, spec.heads * spec.values)), k.arg("lse", (t, spec.heads))
        cache = Cache(q, pools, table, lens, cu, None, out, lse, k.scalar("layer"), b, width)
        turns = None if freq is None else _Turns.lay(spec, freq, width)
        tiles = QueryTiles.allocate(spec, blocks)
        with loop(b) as i:
            listed = 1 if spec.listed_decode else tirx.Cast("int64", cache.count(i) > 1)
            tiles.add(cache, i, i64(listed))
        _tiles(spec, cache, Lists(spec, ids, cnt, n), tiles, turns)
    return k.func


def _tiles(spec: GatherSpec, cache: Cache, lists: Lists, tiles: QueryTiles, turns: _Turns | None) -> None:
    def cost(task: Expr) -> Expr:
        tile = tiles.tile(task)
        # Copying a token takes about as long as 16 rows over it; loading and storing a row as 128 tokens.
        return tile.tokens * 128 + (tile.tokens * spec.unit + 16) * lists.length(tile.row, tile.unit)

    shares = Shares.lay(tiles.count, cost)
    with parallel(shares.count) as share:
        states = RowStates.allocate(spec, -(-spec.piece_tokens * spec.unit // _HEIGHT) * _HEIGHT)
        only = RowStates(states.lanes, states.rows, states.values, states.whole, states.whole)  # no segments
        copied = KvPages(
            "f32", workspace((1, spec.head_dim, BLOCK)), workspace((1, BLOCK, spec.values)),
            spec.head_dim, spec.values, BLOCK,
        )  # fmt: skip
        block = PageBlock(spec.isa, _HEIGHT, spec.head_dim, spec.values, BLOCK, spec.soft_cap, copied)
        seen = scratch((BLOCK,), "int64")
        begin, end = shares.bounds(share)
        with loop(end - begin) as i:
            tile = tiles.tile(bind(begin + i))
            with when(tile.tokens > 0):
                head = bind(tile.unit * spec.unit)
                rows = _SeenRows(
                    spec, cache, tiles.sequence(tile), bind(head // spec.group), tile.first, tile.tokens, _HEIGHT,
                    spec.piece_tokens, spec.unit, head, seen,
                )  # fmt: skip
                start = _count_seen(rows, lists, tile, tiles.free(tile))
                only.load_queries(spec, cache, rows)
                if turns is not None:
                    _turn_queries(spec, rows, only, turns)
                only.reset_whole()
                with loop((rows.highest() + BLOCK - 1) // BLOCK) as p:
                    base = bind(p * BLOCK)
                    with loop(tirx.min(i64(BLOCK), rows.highest() - base)) as slot:
                        token = bind(lists.entry(tile.row, tile.unit, start + base + slot))
                        _copy(spec, rows, copied, token, slot, turns)
                    over_page(block, rows, only, i64(0), base)
                only.finish(spec, cache, rows, blind=True)


def _count_seen(rows: _SeenRows, lists: Lists, tile: Tile, listed: Expr) -> Expr:
    """Note how many tokens of the list each query sees; return the first entry that is a position.

    Entries ascend strictly and so do positions: from a query to the next, at most one more is seen.
    """
    assert rows.seen is not None
    length = bind(lists.length(tile.row, tile.unit) * listed)
    at = bind(rows.cache.length(rows.sequence, rows.kv_head) + tile.first)  # position of the first query

    def entry(i: Expr) -> Expr:
        return lists.entry(tile.row, tile.unit, i)

    start, end = lower_bound(length, i64(0), entry), scratch((1,), "int64")
    store(end, [0], lower_bound(length, at, entry))
    with loop(tile.tokens) as i:
        with T.If(load(end, [0]) < length), T.Then(), T.If(entry(load(end, [0])) == at + i), T.Then():
            store(end, [0], load(end, [0]) + 1)
        store(rows.seen, [i], load(end, [0]) - start)
    return start


def _turn_queries(spec: GatherSpec, rows: Rows, states: RowStates, turns: _Turns) -> None:
    """Turn the queries of a tile from their slots to slot ``distance``."""
    half = spec.head_dim // 2
    cos, sin = scratch((half,)), scratch((half,))
    at = bind(rows.cache.length(rows.sequence, rows.kv_head) + rows.first)
    with loop(rows.tokens) as i:
        slot = bind(at + i)

        def angle(c: Expr, n: int) -> None:
            for table, value in zip((cos, sin), turns.left(slot, c, n), strict=True):
                store(table, [c], value)

        for_columns(half, spec.isa.lanes, angle)
        with loop(rows.group) as h:
            row = (states.part.q, [bind(i * rows.group + h)])
            turn(spec.isa, spec.layout, spec.head_dim, row, cos, sin, [], row)


def _copy(spec: GatherSpec, rows: Rows, to: KvPages, token: Expr, slot: Expr, turns: _Turns | None) -> None:
    """Copy the key and the value at position ``token`` into ``slot`` of the page ``to``, as f32; turn the key back."""
    cache = rows.cache
    page = bind(cache.page_of(rows.sequence, rows.kv_head, bind(token // BLOCK)))
    at = bind(token % BLOCK)
    scales = [
        s if s is None else bind(s)
        for s in (f(page, at, 1) for f in (cache.pages.key_scales, cache.pages.value_scales))
    ]

    def key(e: Expr) -> Expr:
        found = cache.pages.keys(page, e, at, 1)
        return bind(found if scales[0] is None else found * scales[0])

    if turns is None:
        with loop(spec.head_dim) as e:
            store(to.k, [0, e, slot], key(e))
    else:
        with loop(spec.head_dim // 2) as c:
            first, second = pair_of(spec.layout, spec.head_dim, c)
            a, b = key(first), key(second)
            cos, sin = turns.of(token, c)
            store(to.k, [0, first, slot], a * cos + b * sin)
            store(to.k, [0, second, slot], b * cos - a * sin)

    def value(c: Expr, n: int) -> None:
        loaded = cache.pages.values(page, at, c, n)
        factor = scales[1] if scales[1] is None or n == 1 else T.broadcast(scales[1], n)
        store(to.v, [0, slot, c], loaded if factor is None else loaded * factor)

    for_columns(spec.values, spec.isa.lanes, value)
