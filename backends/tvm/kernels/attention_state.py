"""The query rows of an attention task: which tokens and heads they are, what they see, and their softmax state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    Index,
    bind,
    fma,
    fmax,
    i64,
    load,
    loop,
    scratch,
    select,
    splat,
    store,
    when,
    workspace,
)
from fretsaw.backends.tvm.kernels.rows import for_columns
from fretsaw.backends.tvm.kernels.softmax_block import EMPTY, LN2, LOG2E, State, with_sink

if TYPE_CHECKING:
    from fretsaw.backends.tvm.kernels.attention import AttentionSpec, Cache


@dataclass(frozen=True)
class Rows:
    """Rows of a task: row r is head ``r % group`` of token ``first + r // group`` of a sequence.

    A task has the heads of its kv head, or ``heads`` of them from ``head0`` on.
    """

    spec: AttentionSpec
    cache: Cache
    sequence: Expr
    kv_head: Expr
    first: Expr
    tokens: Expr
    height: int  # rows per register block
    static_tokens: int = 0  # the largest number of tokens, where it is not a full tile
    heads: int = 0
    head0: Expr | None = None

    @property
    def group(self) -> int:
        """Rows of one token."""
        return self.heads or self.spec.group

    @property
    def count(self) -> Expr:
        """Number of rows that have a token."""
        return self.tokens * self.group

    @property
    def padded(self) -> int:
        """Rows that the state has room for, a multiple of ``height``."""
        rows = (self.static_tokens or self.spec.tile_tokens) * self.group
        return -(-rows // self.height) * self.height

    @property
    def blocks(self) -> Expr:
        """Number of register blocks that hold a real row."""
        return bind((self.count + self.height - 1) // self.height)

    def _seen(self, token: Expr) -> tuple[Expr, Expr]:
        """Return the slots ``[low, high)`` that a token of the task sees."""
        length = self.cache.length(self.sequence, self.kv_head)
        whole = length + self.cache.count(self.sequence)
        high = bind(length + self.first + token + 1 if self.spec.causal else whole)
        low = bind(tirx.max(i64(0), high - self.spec.window)) if self.spec.window else i64(0)
        return low, high

    def lowest(self) -> Expr:
        """Return the first slot that any row sees."""
        return self._seen(i64(0))[0]

    def highest(self) -> Expr:
        """Return one past the last slot that any row sees."""
        return self._seen(self.tokens - 1)[1]

    def bounds(self, row0: Expr) -> tuple[list[Expr], list[Expr]]:
        """Return low and high of the rows of a block; rows beyond the last repeat the last token's."""
        pairs = [self._seen(bind(tirx.min((row0 + r) // self.group, self.tokens - 1))) for r in range(self.height)]
        return [p[0] for p in pairs], [p[1] for p in pairs]

    def token(self, row: Expr) -> Expr:
        """Return the token of the step that a row belongs to."""
        return self.cache.start(self.sequence) + self.first + row // self.group

    def head(self, row: Expr) -> Expr:
        """Return the query head of a row."""
        first = self.kv_head * self.spec.group if self.head0 is None else self.head0
        return first + row % self.group


@dataclass(frozen=True)
class RowStates:
    """The state of the current segment (``part``) and of all segments before it (``whole``)."""

    lanes: int
    rows: int
    values: int
    part: State
    whole: State

    @staticmethod
    def allocate(spec: AttentionSpec, rows: int) -> RowStates:
        """Allocate for ``rows`` query rows."""
        # Separate allocations: the compiler may then assume that they do not overlap.
        q, scores, shrink = workspace((rows, spec.head_dim)), workspace((rows, spec.page)), scratch((rows,))
        part = State(q, workspace((rows, spec.values)), scratch((rows,)), scratch((rows,)), scores, shrink)
        whole = State(q, workspace((rows, spec.values)), scratch((rows,)), scratch((rows,)), scores, shrink)
        return RowStates(spec.isa.lanes, rows, spec.values, part, whole)

    def load_queries(self, spec: AttentionSpec, cache: Cache, rows: Rows) -> None:
        """Copy the queries with the score factor applied; rows without a token are zero."""
        factor = spec.factor if spec.soft_cap else spec.factor * LOG2E  # a soft cap comes before the change of units
        with loop(rows.blocks * rows.height) as r:
            with when(r < rows.count):
                token, head = bind(rows.token(r)), bind(rows.head(r))
                for_columns(
                    spec.head_dim,
                    self.lanes,
                    lambda c, n: store(self.part.q, [r, c], load(cache.q, [token, head, c], n) * splat(factor, n)),
                )
            with when(r >= rows.count):
                for_columns(spec.head_dim, self.lanes, lambda c, n: store(self.part.q, [r, c], splat(0.0, n)))

    def _reset(self, state: State) -> None:
        with loop(self.rows) as r:
            store(state.top, [r], splat(EMPTY, 1))
            store(state.total, [r], splat(0.0, 1))
            for_columns(self.values, self.lanes, lambda c, n: store(state.values, [r, c], splat(0.0, n)))

    def reset_part(self) -> None:
        """Start a segment."""
        self._reset(self.part)

    def reset_whole(self) -> None:
        """Start a query."""
        self._reset(self.whole)

    def merge(self, count: Index) -> None:
        """Merge the segment into the whole, for the first ``count`` rows."""
        part, whole = self.part, self.whole
        with loop(count) as r:
            top = bind(fmax(load(part.top, [r]), load(whole.top, [r])))
            keep = math.exp2_nonpositive(bind(load(whole.top, [r]) - top))
            add = math.exp2_nonpositive(bind(load(part.top, [r]) - top))
            store(whole.top, [r], top)
            added = bind(load(part.total, [r]) * add)
            store(whole.total, [r], fma(load(whole.total, [r]), keep, added))

            def values(c: Expr, n: int) -> None:
                scaled = bind(load(part.values, [r, c], n) * splat(add, n))
                store(whole.values, [r, c], fma(load(whole.values, [r, c], n), splat(keep, n), scaled))

            for_columns(self.values, self.lanes, values)

    def save(self, parts: Buffer, task: Expr, count: int) -> None:
        """Write the segment's state of ``count`` rows to ``parts[task]``."""
        with loop(count) as r:
            for_columns(
                self.values, self.lanes, lambda c, n: store(parts, [task, r, c], load(self.part.values, [r, c], n))
            )
            store(parts, [task, r, self.values], load(self.part.top, [r]))
            store(parts, [task, r, self.values + 1], load(self.part.total, [r]))

    def restore(self, parts: Buffer, task: Expr, count: int) -> None:
        """Read what ``save`` wrote."""
        with loop(count) as r:
            for_columns(
                self.values, self.lanes, lambda c, n: store(self.part.values, [r, c], load(parts, [task, r, c], n))
            )
            store(self.part.top, [r], load(parts, [task, r, self.values]))
            store(self.part.total, [r], load(parts, [task, r, self.values + 1]))

    def finish(self, spec: AttentionSpec, cache: Cache, rows: Rows, blind: bool = False) -> None:
        """Divide by the sums (with the sinks in them) and write the output rows.

        Where rows may be ``blind``, see nothing, they become zero, with the logarithm -inf.
        """
        whole = self.whole
        with loop(rows.count) as r:
            token, head = bind(rows.token(r)), bind(rows.head(r))
            top, total, keep = with_sink(bind(load(whole.top, [r])), bind(load(whole.total, [r])), cache.sinks, head)
            if cache.lse is not None:  # the maximum is in units of log 2, and so is the sum's logarithm
                store(cache.lse, [token, head], (top + T.log2(total)) * splat(LN2, 1))
            factor = bind(keep / total)
            if blind:
                factor = bind(select(total > splat(0.0, 1), factor, splat(0.0, 1)))
            for_columns(
                spec.values,
                self.lanes,
                lambda c, n: store(
                    cache.out, [token, head * spec.values + c], load(whole.values, [r, c], n) * splat(factor, n)
                ),
            )
