"""The query blocks of a step, as the kernels of selectors walk them: which sequence owns a row, and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    Kernel,
    bind,
    dim,
    i32,
    i64,
    load,
    loop,
    parallel,
    store,
    when,
    workspace,
)
from fretsaw.ir.kv import BLOCK


@dataclass(frozen=True)
class QueryBlock:
    """One used row: as ``ir.kv.QueryBlock``, in expressions.

    Args:
        row: Its row in arrays over query blocks.
        sequence: b.
        block: Its number in the sequence.
        first: Position of its first query of the step.
        last: One past the position of its last one.
        start: Slots of the sequence before the step.
        end: Slots of the sequence with the step.
        token: Its first query among the step's tokens.
    """

    row: Expr
    sequence: Expr
    block: Expr
    first: Expr
    last: Expr
    start: Expr
    end: Expr
    token: Expr

    @property
    def count(self) -> Expr:
        """Queries in it."""
        return self.last - self.first

    @property
    def decodes(self) -> Expr:
        """The step holds one token of its sequence."""
        return self.end - self.start == 1


@dataclass(frozen=True)
class Step:
    """Offsets ``cu i32[B + 1]`` and lengths ``lens i32[L, B, Hkv]`` before the step, of which one layer's first head
    counts: a sequence has as many slots in every head and layer.

    Args:
        rows: QB.
        sequences: B.
    """

    cu: Buffer
    lens: Buffer
    rows: Expr
    sequences: Expr
    kv_heads: Expr

    @staticmethod
    def declare(k: Kernel, rows: Expr) -> Step:
        """Declare the next two arguments of a kernel: ``lens``, then ``cu``."""
        layers, b, heads = dim("L"), dim("B"), dim("HKV")
        lens = k.arg("lens", (layers, b, heads), "int32")
        return Step(k.arg("cu", (b + 1,), "int32"), lens, rows, b, heads)

    def begin(self, b: Expr) -> Expr:
        """Return the first token of a sequence."""
        return tirx.Cast("int64", load(self.cu, [b]))

    def count(self, b: Expr) -> Expr:
        """Return the tokens of a sequence in the step."""
        return self.begin(b + 1) - self.begin(b)

    def before(self, b: Expr) -> Expr:
        """Return the slots that a sequence had before the step."""
        return tirx.Cast("int64", load(self.lens, [i64(0), b, i64(0)]))

    def end(self, b: Expr) -> Expr:
        """Return the slots that a sequence has with the step."""
        return self.before(b) + self.count(b)

    def first_row(self, b: Expr) -> Expr:
        """Return the row of the first query block of a sequence."""
        return self.begin(b) // BLOCK + 2 * b

    def blocks(self, b: Expr) -> Expr:
        """Return how many query blocks a sequence has in the step."""
        touched = (self.end(b) + BLOCK - 1) // BLOCK - self.before(b) // BLOCK
        return T.Select(self.count(b) > 0, touched, i64(0))

    def owners(self) -> Buffer:
        """Write down which sequence each row belongs to, -1 for none: i32[QB]."""
        owner = workspace((self.rows,), "int32")
        with loop(self.rows) as r:
            store(owner, [r], i32(-1))
        with loop(self.sequences) as b:
            first = bind(self.first_row(b))
            with loop(bind(self.blocks(b))) as i:
                store(owner, [first + i], tirx.Cast("int32", b))
        return owner

    def block(self, row: Expr, b: Expr) -> QueryBlock:
        """Return the query block in a used row of sequence ``b``."""
        start = bind(self.before(b))
        end = bind(start + self.count(b))
        block = bind(start // BLOCK + row - self.first_row(b))
        first = bind(tirx.max(start, block * BLOCK))
        last = bind(tirx.min(end, block * BLOCK + BLOCK))
        return QueryBlock(row, b, block, first, last, start, end, bind(self.begin(b) + first - start))

    @contextmanager
    def each_row(self) -> Iterator[tuple[Expr, Buffer]]:
        """Open a parallel loop over all rows: the row, and the owners of rows."""
        owner = self.owners()
        with parallel(self.rows) as row:
            yield row, owner

    @contextmanager
    def used(self, row: Expr, owner: Buffer) -> Iterator[QueryBlock]:
        """Open a block that runs if a row is used."""
        b = bind(tirx.Cast("int64", load(owner, [row])))
        with when(b >= 0):
            yield self.block(row, b)

    @contextmanager
    def within(self, b: Expr, j: Expr) -> Iterator[QueryBlock]:
        """Open a block that runs if block ``j`` of a sequence has tokens in the step."""
        at = bind(j - self.before(b) // BLOCK)
        with when(tirx.all(at >= 0, at < self.blocks(b))):
            yield self.block(bind(self.first_row(b) + at), b)
