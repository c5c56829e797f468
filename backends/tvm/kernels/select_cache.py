"""What kernels that score cached keys share: the cache's keys in 64-slot pages, and a product of rows with a panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.program.kv_storage import KvType, page_shapes
from fretsaw.backends.program.pack import PANEL
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    Index,
    Kernel,
    bind,
    dim,
    i32,
    i64,
    load,
    loop,
    scratch,
    select,
    splat,
    store,
    unroll,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.kv_pages import TVM_TYPE, KvPages
from fretsaw.backends.tvm.kernels.select_step import Step
from fretsaw.backends.tvm.kernels.softmax_block import fold
from fretsaw.backends.tvm.kernels.tile import accumulate
from fretsaw.ir.kv import BLOCK

NEVER = float("-inf")  # the score of what a row does not see


@dataclass(frozen=True)
class KeyCache:
    """Keys of the cache and the step over them.

    Args:
        width: KB, columns of the page table.
    """

    pages: KvPages
    table: Buffer
    step: Step
    width: Expr
    layer: Expr

    @staticmethod
    def declare(
        k: Kernel, kv: KvType, kv_heads: int, size: int, rows: Expr, width: Expr, queries: int = 0
    ) -> tuple[KeyCache, Buffer | None]:
        """Declare the next arguments of a kernel: ``k_pages``, ``table``, ``lens``, ``cu``, ``q f32[T, queries, E]``
        if there are heads of queries, and the scalar ``layer``. Returns the cache, and q."""
        if queries:
            cache, q, _ = KeyCache.declare_with(k, kv, kv_heads, size, rows, width, queries, ())
            return cache, q
        pages, table, step = _declare(k, kv, kv_heads, size, rows, width)
        return KeyCache(pages, table, step, width, k.scalar("layer")), None

    @staticmethod
    def declare_with(
        k: Kernel, kv: KvType, kv_heads: int, size: int, rows: Expr, width: Expr, queries: int,
        more: Sequence[tuple[str, tuple[Index, ...], str]],
    ) -> tuple[KeyCache, Buffer, list[Buffer]]:  # fmt: skip
        """As :meth:`declare`, with further arguments (name, shape, dtype) between q and the scalar."""
        pages, table, step = _declare(k, kv, kv_heads, size, rows, width)
        q = k.arg("q", (dim("T"), queries, size))
        rest = [k.arg(*argument) for argument in more]
        return KeyCache(pages, table, step, width, k.scalar("layer")), q, rest

    @staticmethod
    def declare_keys(
        k: Kernel, kv: KvType, kv_heads: int, size: int, width: Expr, more: Sequence[tuple[str, tuple[Index, ...], str]]
    ) -> tuple[KeyCache, list[Buffer]]:
        """As :meth:`declare`, without queries and with further arguments before the scalar."""
        pages, table, step = _declare(k, kv, kv_heads, size, i64(0), width)
        rest = [k.arg(*argument) for argument in more]
        return KeyCache(pages, table, step, width, k.scalar("layer")), rest

    def page(self, b: Expr, h: Expr, j: Expr) -> Expr:
        """Return the page of block ``j`` of a sequence and a head of keys."""
        return bind(tirx.Cast("int64", load(self.table, [self.layer, b, h, j])))

    def keys(self, page: Expr, e: Expr, slot: Expr, lanes: int = 1) -> Expr:
        """Return one element of ``lanes`` keys from a slot on, or of one key, as attention reads them."""
        value = self.pages.keys(page, e, slot, lanes)
        scale = self.pages.key_scales(page, slot, lanes)
        return value if scale is None else value * scale

    def fold_keys(
        self, page: Expr, e: Expr, used: Expr, lanes: int, join: Callable[[Expr, Expr], Expr], empty: float
    ) -> Expr:
        """Return element ``e`` of the first ``used`` keys of a page, joined. Other slots may hold anything.

        Args:
            join: of two numbers or vectors; ``empty`` changes nothing.
        """
        acc = scratch((lanes,))
        store(acc, [0], splat(empty, lanes))
        limit = bind(tirx.Cast("int32", used))
        with loop(BLOCK // lanes) as v:
            slot = bind(v * lanes)
            value = bind(self.keys(page, e, slot, lanes))
            exists = tirx.Ramp(tirx.Cast("int32", slot), i32(1), lanes) < tirx.Broadcast(limit, lanes)
            store(acc, [0], join(load(acc, [0], lanes), bind(select(exists, value, splat(empty, lanes)))))
        return bind(fold(bind(load(acc, [0], lanes)), join))

    def scored(self, b: Expr, decode: bool) -> Expr:
        """Whether queries of a sequence are scored: it has some, and more than one unless ``decode``."""
        return self.step.count(b) > (0 if decode else 1)


def _declare(k: Kernel, kv: KvType, kv_heads: int, size: int, rows: Expr, width: Expr) -> tuple[KvPages, Buffer, Step]:
    pool = k.arg("k_pages", (dim("NP"), *page_shapes(size, size, BLOCK, kv)[0]), TVM_TYPE[kv])
    pages = KvPages(kv, pool, pool, size, size, BLOCK)
    table = k.arg("table", (dim("LT"), dim("BT"), kv_heads, width), "int32")
    return pages, table, Step.declare(k, rows)


def multiply(
    isa: Isa, rows: Expr, depth: int, x: Buffer, w: Callable[[Expr, int], Expr], put: Callable[[Expr, int, Expr], None]
) -> None:
    """Emit the product of ``x`` [rows, depth] with 16 columns, in register tiles.

    Args:
        rows: Rows to compute; there must be room for whole tiles in ``x``.
        w: gives ``isa.lanes`` columns from a given one on, at k.
        put: is given a row, the first of some columns, and a vector of them.
    """
    with loop(bind((rows + isa.rows - 1) // isa.rows)) as t:
        row0 = bind(t * isa.rows)
        tile = accumulate(isa, isa.rows, 1, depth, lambda r, k: load(x, [row0 + r, k]), lambda p, k, col: w(k, col))
        with unroll(isa.rows) as r:
            for v in range(PANEL // isa.lanes):
                put(row0 + r, v * isa.lanes, tile.vector(r, 0, v))


def tiles_of(isa: Isa, rows: int) -> int:
    """Rows that whole tiles over ``rows`` rows have."""
    return -(-rows // isa.rows) * isa.rows


def fill(buf: Buffer, head: list[Expr], begin: Expr, end: Expr, value: float) -> None:
    """Set the elements ``begin ... end`` of a row."""
    with loop(tirx.max(i64(0), end - begin)) as i:
        store(buf, [*head, begin + i], splat(value, 1))
