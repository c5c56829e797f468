"""DHSA, training-free masks on fixed blocks: pooled top-k, or the lines of the last queries.

    variant a:   mean-pooled products; the first and the row's own block, then the best up to the budget
    variant vs:  columns and diagonals of the last 128 queries, half of the budget each; blocks by the mass that hits
    budget of a row: density of the blocks that it sees

Blocks: 64 positions (the source has 32 for keys and 128 for queries). The source's budget is density of the blocks of
        the whole prompt, so that its early rows are dense; here dense_until says so, and a list does not depend on the
        length to come: a variant. In vs the lines number half of density * S tokens each, as there, and rows of the
        last block are dense.
Dense:  density >= 1.
Limits: the learned boundaries of the first paper are not built. Its topk picks before the causal mask: here after it.
Source: DHSA, arXiv:2510.24606, and xiongsiheng/DHSA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.methods.mean_pool import pooled_scores
from fretsaw.passes.sparse.options import LastQueries
from fretsaw.passes.sparse.site import Site

LAST = 128  # queries that variant vs scores with, and rows at the end of a prompt that it leaves dense


@dataclass(frozen=True)
class Dhsa(LastQueries):
    """Args:
    form: Variant a or vs.
    density: Share of the visible blocks that a row reads, 0 to 1.
    lines: Columns and diagonals together, in variant vs, in tokens.
    """

    method: Literal["dhsa"] = "dhsa"
    form: Literal["a", "vs"] = "a"
    density: float = 0.25
    lines: int = 2048

    def lows(self) -> Mapping[str, float]:
        return {"density": 0, "lines": 2, "dense_until": 0}

    def whole_prompt(self) -> str:
        return super().whole_prompt() if self.form == "vs" else ""

    def exact_dense(self, tokens: int) -> bool:
        return self.density >= 1 or tokens <= self.dense_until


def emit(site: Site, options: Dhsa) -> Selection:
    """Scores of the variant, and a share of the visible blocks."""
    heads, tail = site.heads, LAST if options.form == "vs" else 0
    if options.density >= 1:
        return Selection(site.everything(heads))
    forced = site.forced(heads, sink=1, local=1, dense_until=options.dense_until, last_rows=tail)
    if options.form == "vs":
        columns, diagonals = site.line_scores(LAST)
        half = options.lines // 2
        scores = site.emit("line_block_scores", site.kv, columns, diagonals, columns=half, diagonals=half)
    else:
        scores = pooled_scores(site, heads, site.scale)
    return Selection(site.emit("select_share", site.kv, scores, forced, density=options.density))


METHOD = Method("dhsa", Dhsa, emit, causal_selection=False)
