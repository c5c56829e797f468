"""Sequences with one query in the step, over listed pages: spread over threads by segments of pages, like dense decode.

Segments are numbered from the start of the sequence and merged in order, so a query gets the bits that it would get in
a tile of a prefill with the same list.
"""

from __future__ import annotations

from tvm import tirx

from fretsaw.backends.tvm.kernels.attention import Cache, Spans, over_page
from fretsaw.backends.tvm.kernels.attention_state import Rows, RowStates
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    i64,
    load,
    loop,
    parallel,
    splat,
    store,
    when,
    workspace,
)
from fretsaw.backends.tvm.kernels.query_tiles import ListedSpec, Lists
from fretsaw.backends.tvm.kernels.shares import lower_bound
from fretsaw.backends.tvm.kernels.softmax_block import PageBlock
from fretsaw.ir.kv import BLOCK

_STRIDE = 4  # tasks are dealt out in this stride, so that threads get segments of all places
_UNLISTED = -1.0  # stands in a segment's sum where the list has no page of it


def list_decode(spec: ListedSpec, cache: Cache, lists: Lists, spans: Spans | None, segments: Expr) -> None:
    """Run the sequences with one query; the longest has ``segments`` segments."""
    unit = spec.unit
    pairs = bind(cache.sequences * spec.units)
    tasks = bind(pairs * segments)
    # Sized by what the page table can hold: an allocation is moved to the top, where only shapes are known.
    room = cache.sequences * spec.units * ((cache.table_width + spec.segment - 1) // spec.segment)
    parts = workspace((room, unit, spec.values + 2))  # values, then maximum and sum
    share = bind((tasks + _STRIDE - 1) // _STRIDE)
    height = max(r for r in range(1, 7) if r <= unit and -(-unit // r) == -(-unit // 6))

    def rows_of(b: Expr, u: Expr) -> Rows:
        head = bind(u * unit)
        return Rows(spec, cache, b, bind(head // spec.group), i64(0), i64(1), height, 1, unit, head)

    with parallel(share * _STRIDE) as dealt:
        task = bind(dealt // share + dealt % share * _STRIDE)
        with when(task < tasks):
            b, u = bind(task // segments // spec.units), bind(task // segments % spec.units)
            with when(cache.count(b) == 1):
                store(parts, [task, 0, spec.values + 1], splat(_UNLISTED, 1))
                _segment(spec, lists, rows_of(b, u), u, bind(task % segments), parts, task, spans)
    with parallel(pairs) as pair:
        b, u = bind(pair // spec.units), bind(pair % spec.units)
        with when(cache.count(b) == 1):
            rows = rows_of(b, u)
            states = RowStates.allocate(spec, rows.padded)
            states.reset_whole()
            with loop(segments) as s:
                task = bind(pair * segments + s)
                with when(load(parts, [task, 0, spec.values + 1]) >= splat(0.0, 1)):
                    states.restore(parts, task, unit)
                    states.merge(unit)
            states.finish(spec, cache, rows, blind=True)


def _segment(
    spec: ListedSpec,
    lists: Lists,
    rows: Rows,
    unit: Expr,
    segment: Expr,
    parts: Buffer,
    task: Expr,
    spans: Spans | None,
) -> None:
    """Run the rows over the listed pages of one segment, if there are any."""
    cache, b = rows.cache, rows.sequence
    row = bind(cache.start(b) // BLOCK + 2 * b)
    length = bind(lists.length(row, unit))
    reach = bind(cache.length(b, rows.kv_head) // BLOCK + 1)  # pages that the query sees something of
    first = bind(segment * spec.segment)

    def entry(i: Expr) -> Expr:
        return lists.entry(row, unit, i)

    begin = lower_bound(length, first, entry)
    end = lower_bound(length, bind(tirx.min(first + spec.segment, reach)), entry)
    with when(begin < end):
        states = RowStates.allocate(spec, rows.padded)
        states.load_queries(spec, cache, rows)
        states.reset_part()
        block = PageBlock(spec.isa, rows.height, spec.head_dim, spec.values, BLOCK, spec.soft_cap, cache.pages)
        with loop(end - begin) as i:
            index = bind(entry(begin + i))
            page = bind(cache.page_of(b, rows.kv_head, index))
            over_page(block, rows, states, page, bind(index * BLOCK), None, spans)
        states.save(parts, task, spec.unit)
