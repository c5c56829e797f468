"""Least and greatest keys of pages, kept beside the pages, and upper bounds of logits from them (Quest).

A step that appends to a page computes its bounds anew from the keys that the page holds then. So bounds are those of
the tokens that are there, whatever was taken back or shared before, and a page that is full is never read again.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
    fma,
    i64,
    kernel,
    load,
    loop,
    parallel,
    select,
    splat,
    store,
    when,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns, reduce_row
from fretsaw.backends.tvm.kernels.select_cache import NEVER, KeyCache
from fretsaw.backends.tvm.kernels.select_step import QueryBlock, Step
from fretsaw.ir.kv import BLOCK

_PAGES = 16  # pages that one task scores


@dataclass(frozen=True)
class KeyBoundSpec:
    """Both kernels.

    Args:
        heads: H of the queries; only scores have it.
        size: E.
        scale: What a bound is multiplied with.
        kv: How the pages are stored; bounds are f32, of keys as they are read.
    """

    kv_heads: int
    size: int
    isa: Isa
    heads: int = 0
    scale: float = 1.0
    kv: KvType = "f32"
    name: str = "key_bounds"

    @property
    def group(self) -> int:
        """Query heads per head of keys."""
        return self.heads // self.kv_heads


def keep_bounds(spec: KeyBoundSpec) -> tirx.PrimFunc:
    """Return the PrimFunc that brings the bounds of all pages up to date that the step has appended to.

    Arguments in order: ``k_pages``, ``table``, ``lens``, ``cu`` (:class:`KeyCache`); ``key_bounds f32[NP, 2 * E]``,
    least keys first, written in place; ``layer`` (int64).
    """
    with kernel(spec.name) as k:
        width = dim("KB")
        more = [("key_bounds", (dim("NB"), 2 * spec.size), "float32")]
        cache, (bounds,) = KeyCache.declare_keys(k, spec.kv, spec.kv_heads, spec.size, width, more)
        step = cache.step
        with parallel(step.sequences * spec.kv_heads * width) as task:
            b, h, j = bind(task // width // spec.kv_heads), bind(task // width % spec.kv_heads), bind(task % width)
            used = bind(tirx.min(i64(BLOCK), step.end(b) - j * BLOCK))
            with when(tirx.all(step.count(b) > 0, used > 0, (j + 1) * BLOCK > step.before(b))):
                page = cache.page(b, h, j)
                with loop(spec.size) as e:
                    for at, join, empty in ((e, _least, float("inf")), (spec.size + e, _most, float("-inf"))):
                        store(bounds, [page, at], cache.fold_keys(page, e, used, spec.isa.lanes, join, empty))
    return k.func


def _least(a: Expr, b: Expr) -> Expr:
    return select(a < b, a, b)


def _most(a: Expr, b: Expr) -> Expr:
    return select(a > b, a, b)


def stored_bound_scores(spec: KeyBoundSpec) -> tirx.PrimFunc:
    """Return the PrimFunc that scores the pages of sequences with one token in the step; other rows are -inf.

    Arguments in order: ``table i32[L, B, Hkv, KB]``; ``lens``, ``cu`` (:class:`Step`); ``key_bounds f32[NP, 2 * E]``;
    ``q f32[T, H, E]``; ``layer`` (int64); ``out f32[QB, H, KB]``.
    """
    with kernel(spec.name) as k:
        rows, width = dim("QB"), dim("KB")
        table = k.arg("table", (dim("LT"), dim("BT"), spec.kv_heads, width), "int32")
        step = Step.declare(k, rows)
        bounds = k.arg("key_bounds", (dim("NB"), 2 * spec.size))
        q = k.arg("q", (dim("T"), spec.heads, spec.size))
        layer = k.scalar("layer")
        out = k.arg("out", (rows, spec.heads, width))
        owner = step.owners()
        pieces = bind((width + _PAGES - 1) // _PAGES)
        # Rows come last: of a single sequence most are unused, and threads take neighbouring tasks.
        with parallel(spec.kv_heads * pieces * rows) as task:
            h, piece, row = bind(task // rows // pieces), bind(task // rows % pieces), bind(task % rows)
            first, last = bind(piece * _PAGES), bind(tirx.min(width, piece * _PAGES + _PAGES))
            with loop(spec.group) as g, loop(last - first) as j:
                store(out, [row, h * spec.group + g, first + j], splat(NEVER, 1))
            with step.used(row, owner) as block, when(tirx.all(block.decodes, first <= block.block)):
                x = _signed(spec, q, block, h)
                with loop(bind(tirx.min(last, block.block + 1) - first)) as at:
                    j = bind(first + at)
                    page = bind(tirx.Cast("int64", load(table, [layer, block.sequence, h, j])))
                    with loop(spec.group) as g:
                        bound = reduce_row(
                            2 * spec.size, spec.isa.lanes,
                            lambda total, c, n: fma(load(x, [g, c], n), load(bounds, [page, c], n), total),
                        )  # fmt: skip
                        store(out, [row, h * spec.group + g, j], bound * splat(spec.scale, 1))
    return k.func


def _signed(spec: KeyBoundSpec, q: Buffer, block: QueryBlock, h: Expr) -> Buffer:
    """The queries of a head of keys, negative parts (which meet the least keys) before positive ones: [group, 2 E]."""
    x = T.alloc_buffer((spec.group, 2 * spec.size), "float32", scope="global")
    with loop(spec.group) as g:

        def column(c: Expr, n: int) -> None:
            value, zero = bind(load(q, [block.token, h * spec.group + g, c], n)), splat(0.0, n)
            store(x, [g, c], select(value > zero, zero, value))
            store(x, [g, spec.size + c], select(value > zero, value, zero))

        for_columns(spec.size, spec.isa.lanes, column)
    return x
