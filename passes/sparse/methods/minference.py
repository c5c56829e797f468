"""MInference: each head in one of three patterns; indices of two of them are estimated for every prompt.

    vertical_slash: the last 64 queries see every key; their mass summed by column and by distance; the best of each
    block_sparse:   mean-pooled top-k (see mean_pool), without scale
    a_shape:        sink and window (see lambda_mask), sink = vertical, window = slash

Blocks: diagonals of vertical_slash are rounded up to whole blocks of 64, a superset. Columns outside of these are
        gathered one by one as in the source, or rounded up too (columns=blocks). block_sparse forces sink, diagonal
        and sub-diagonal, which the source does not.
Dense:  vertical or slash >= S; blocks >= the number of blocks; window >= S.
Limits: vertical_slash scores with the end of the prompt: lists of earlier rows depend on it (causal_selection is false;
        attention itself stays causal). The source's per-head search writes a plan (method=plan).
Source: MInference 1.0, arXiv:2407.02490; 30 first columns and 100 nearest diagonals are forced, as its code does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.method import Columns, Method, Selection
from fretsaw.passes.sparse.methods.lambda_mask import spans
from fretsaw.passes.sparse.methods.mean_pool import pooled_scores
from fretsaw.passes.sparse.options import LastQueries
from fretsaw.passes.sparse.site import Site

LAST, FIRST_COLUMNS, NEAR_DIAGONALS, LEAST_DIAGONALS = 64, 30, 100, 50


@dataclass(frozen=True)
class MInference(LastQueries):
    """Args:
    pattern: What the heads look like.
    vertical: Columns of vertical_slash, at least 30; the sink of a_shape, in tokens.
    slash: Diagonals of vertical_slash, at least 50; the window of a_shape, in tokens.
    columns: Columns of vertical_slash are read as single ``tokens``, or as all ``blocks`` that they touch.
    blocks: Blocks that a row of block_sparse reads.
    """

    method: Literal["minference"] = "minference"
    pattern: Literal["vertical_slash", "block_sparse", "a_shape"] = "vertical_slash"
    vertical: int = 1000
    slash: int = 6096
    columns: Literal["tokens", "blocks"] = "tokens"
    blocks: int = 100

    def lows(self) -> Mapping[str, float]:
        return {"vertical": 0, "slash": 1, "blocks": 1, "dense_until": 0}

    def whole_prompt(self) -> str:
        return super().whole_prompt() if self.pattern == "vertical_slash" else ""

    def exact_dense(self, tokens: int) -> bool:
        if self.pattern == "a_shape":
            return self.vertical + self.slash >= tokens
        full = max(self.vertical, self.slash) if self.pattern == "vertical_slash" else self.blocks * BLOCK
        return max(full, self.dense_until) >= tokens


def emit(site: Site, options: MInference) -> Selection:
    """The ops of the pattern."""
    heads = site.heads
    if options.pattern == "a_shape":
        return spans(site, (options.vertical,) * heads, (options.slash,) * heads)
    if options.pattern == "block_sparse":
        forced = site.forced(heads, sink=1, local=2, dense_until=options.dense_until)
        return Selection(site.emit("select_top_k", site.kv, pooled_scores(site, heads, 1.0), forced, k=options.blocks))
    columns, diagonals = site.line_scores(LAST)
    forced = site.forced(heads, local=1, dense_until=options.dense_until)
    count, touch = max(options.vertical, FIRST_COLUMNS), options.columns == "blocks"
    mask = site.emit(
        "line_blocks", site.kv, columns, diagonals, forced,
        columns=count if touch else 0, diagonals=max(options.slash, LEAST_DIAGONALS),
        first_columns=FIRST_COLUMNS if touch else 0, near_diagonals=NEAR_DIAGONALS,
    )  # fmt: skip
    return Selection(mask, columns=None if touch else Columns(columns, (count,) * heads, FIRST_COLUMNS))


METHOD = Method("minference", MInference, emit, causal_selection=False)
