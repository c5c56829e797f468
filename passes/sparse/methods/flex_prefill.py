"""FlexPrefill: as many columns and diagonals as hold a share of the mass, and pooled blocks where they mislead.

    the last 64 queries see every key; mass by column and by distance; blocks of each that hold gamma of it
    a head whose pooled map is near the true one (sqrt of Jensen-Shannon < tau) takes the least lines and its pooled map

Blocks: 64 positions and the last 64 queries (the source has 128). Its budgets count 128 lines to a block whatever the
        block; here 64. Diagonals are pooled from the row's own block on, so that a length that is no multiple of the
        block shifts nothing. tau = 0, the source's own default, leaves the pooled map out.
Dense:  gamma >= 1, decided before any score; min_budget >= S.
Limits: scores with the end of the prompt: lists of earlier rows depend on it (causal_selection is false).
Source: FlexPrefill, arXiv:2502.20766.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import LastQueries
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class FlexPrefill(LastQueries):
    """Args:
    gamma: Share of the mass that the lines hold, 0 to 1.
    tau: Largest distance of a head whose pooled map is used; 0: none is.
    min_budget: Least keys of columns and of diagonals, in tokens.
    max_budget: Most of them; 0: no limit.
    """

    method: Literal["flex_prefill"] = "flex_prefill"
    gamma: float = 0.9
    tau: float = 0.0
    min_budget: int = 1024
    max_budget: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_budget and self.max_budget < self.min_budget:
            raise ValueError(f"max_budget {self.max_budget} is below min_budget {self.min_budget}")
        if not self.gamma > 0:
            raise ValueError("gamma is above 0")

    def lows(self) -> Mapping[str, float]:
        return {"gamma": 0, "tau": 0, "min_budget": 0, "max_budget": 0, "dense_until": 0}

    def exact_dense(self, tokens: int) -> bool:
        return self.gamma >= 1 or max(2 * BLOCK, self.min_budget, self.dense_until) >= tokens


def emit(site: Site, options: FlexPrefill) -> Selection:
    """Lines by their mass; with tau, the pooled map of heads that it fits."""
    heads = site.heads
    if options.gamma >= 1:
        return Selection(site.everything(heads))
    columns, diagonals = site.line_scores(BLOCK)
    least, most = (-(-n // BLOCK) for n in (options.min_budget, options.max_budget))
    forced = site.forced(heads, sink=1, local=1, dense_until=options.dense_until)
    lines = (site.kv, columns, diagonals, forced)
    least = max(1, least)
    mask = site.emit("flex_blocks", *lines, gamma=options.gamma, min_blocks=least, max_blocks=most)
    if options.tau:
        few = site.emit("flex_blocks", *lines, gamma=options.gamma, min_blocks=least, max_blocks=least)
        queries, keys = site.emit("pool_queries", site.kv, site.q, kind="mean"), site.pooled_keys("mean")
        mask = site.emit(
            "flex_switch", site.kv, columns, queries, keys, mask, few,
            gamma=options.gamma, tau=options.tau, scale=site.scale,
        )  # fmt: skip
    return Selection(mask)


METHOD = Method("flex_prefill", FlexPrefill, emit, causal_selection=False)
