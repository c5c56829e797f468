"""The query blocks of a step as tasks of kernels that read lists: tiles of queries times heads that share a list.

Arrays over query blocks have the rows that ``ir/kv.py`` says. A tile lies within one query block, so its position in
the sequence, and not the step, decides what is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from tvm import tirx

from fretsaw.backends.tvm.kernels.attention import AttentionSpec, Cache
from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, bind, i64, load, loop, store, when, workspace
from fretsaw.ir.kv import BLOCK

_SEQUENCE, _NUMBER, _FIRST, _END, _START, _FREE = range(6)  # columns of the table of places


@dataclass(frozen=True)
class ListedSpec(AttentionSpec):
    """As :class:`AttentionSpec`, with a page of 64 slots, no window, and

    Args:
        lists: G, lists per query block; 0 means one for each kv head.
        listed_decode: lists hold for sequences with one query in the step too.
    """

    lists: int = 0
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

    def check(self) -> None:
        """Raise ValueError for heads that cannot be grouped, pages that are no blocks, and a window."""
        if self.heads % self.kv_heads or self.heads % self.groups:
            raise ValueError("attention over lists: heads must be a multiple of kv_heads and of lists")
        if self.page != BLOCK or self.window or not self.causal:
            raise ValueError(f"attention over lists: pages have {BLOCK} slots, it is causal and has no window")


@dataclass(frozen=True)
class Lists:
    """The lists of a step: ``idx i32[QB, G, n]`` of which ``cnt i32[QB, G]`` count."""

    spec: ListedSpec
    idx: Buffer
    cnt: Buffer
    width: Expr

    def length(self, row: Expr, unit: Expr) -> Expr:
        """Return the entries of the list of some heads, from none to all that there is room for."""
        count = tirx.Cast("int64", load(self.cnt, [row, self._group(unit)]))
        return tirx.max(i64(0), tirx.min(count, self.width))

    def entry(self, row: Expr, unit: Expr, i: Expr) -> Expr:
        """Return entry ``i``."""
        return tirx.Cast("int64", load(self.idx, [row, self._group(unit), i]))

    def _group(self, unit: Expr) -> Expr:
        return unit * self.spec.unit // (self.spec.heads // self.spec.groups)


@dataclass(frozen=True)
class Tile:
    """One task, in expressions.

    Args:
        unit: Which heads, from ``unit * spec.unit`` on.
        row: Its query block, among the rows of the lists.
        first: Its first query, counted from the first of the sequence in the step.
        tokens: How many it has; none for rows without queries.
    """

    unit: Expr
    row: Expr
    first: Expr
    tokens: Expr


@dataclass(frozen=True)
class QueryTiles:
    """All tiles of a step, head by head."""

    spec: ListedSpec
    places: Buffer
    blocks: Expr

    @staticmethod
    def allocate(spec: ListedSpec, blocks: Expr) -> QueryTiles:
        """Room for ``blocks`` rows, none of which has queries yet."""
        tiles = QueryTiles(spec, workspace((blocks, 6), "int64"), blocks)
        with loop(blocks) as r:
            for column in range(6):
                store(tiles.places, [r, column], i64(0))
        return tiles

    def add(self, cache: Cache, b: Expr, free: Expr) -> None:
        """Cut the queries of sequence ``b`` into blocks; ``free`` (int64) is noted with them."""
        count, before = bind(cache.count(b)), bind(cache.length(b, i64(0)))
        number = bind(before // BLOCK)
        row = bind(cache.start(b) // BLOCK + 2 * b)
        with when(count > 0), loop((before + count + BLOCK - 1) // BLOCK - number) as i:
            start = bind((number + i) * BLOCK - before)  # of the block, counted from the sequence's first query
            first, end = tirx.max(i64(0), start), tirx.min(count, start + BLOCK)
            for column, value in enumerate((b, number + i, first, end, start, free)):
                store(self.places, [row + i, column], value)

    @property
    def count(self) -> Expr:
        """Number of tasks, from sizes alone."""
        return self.blocks * (self.spec.pieces * self.spec.units)

    def tile(self, task: Expr) -> Tile:
        """Return a task by its number."""
        each = bind(self.blocks * self.spec.pieces)
        unit, row = bind(task // each), bind(task % each // self.spec.pieces)
        start = bind(load(self.places, [row, _START]) + task % self.spec.pieces * self.spec.piece_tokens)
        first = bind(tirx.max(load(self.places, [row, _FIRST]), start))
        end = bind(tirx.min(load(self.places, [row, _END]), start + self.spec.piece_tokens))
        return Tile(unit, row, first, bind(tirx.max(i64(0), end - first)))

    def sequence(self, tile: Tile) -> Expr:
        """Return the sequence of a tile."""
        return bind(load(self.places, [tile.row, _SEQUENCE]))

    def number(self, tile: Tile) -> Expr:
        """Return the number of its block in the sequence."""
        return bind(load(self.places, [tile.row, _NUMBER]))

    def free(self, tile: Tile) -> Expr:
        """Return what was noted with its sequence."""
        return bind(load(self.places, [tile.row, _FREE]))
