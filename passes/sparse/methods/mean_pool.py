"""Mean-pooled top-k: blocks by the product of mean query and mean key.

    score(i, j) = scale * mean(q of block i) . mean(k of block j)
    row: block 0, the diagonal and the one before it, then the best scores up to a number or a share of the visible ones

Blocks: 64 positions. Means are over true tokens, so that tails are not diluted. Sink, diagonal and sub-diagonal are
        forced and count towards the budget, as in Sparse Frontier; MInference's own block-sparse forces none.
Dense:  density >= 1; blocks >= the number of blocks.
Limits: means cancel the fast dimensions of a rotary embedding, so that slash patterns are not seen (see prism).
Source: block-sparse of MInference, arXiv:2407.02490; Sparse Frontier, arXiv:2504.17768.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.ir import Value
from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import Shared
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class MeanPool(Shared):
    """Args:
    density: Share of the visible blocks that a row reads, 0 to 1.
    blocks: How many it reads instead, whatever it sees; 0: density says.
    """

    method: Literal["mean_pool"] = "mean_pool"
    density: float = 0.25
    blocks: int = 0

    def lows(self) -> Mapping[str, float]:
        return {"density": 0, "blocks": 0, "dense_until": 0}

    def exact_dense(self, tokens: int) -> bool:
        full = self.blocks * BLOCK >= tokens if self.blocks else self.density >= 1
        return full or tokens <= self.dense_until


def pooled_scores(site: Site, groups: int, scale: float) -> Value:
    """Products of mean queries and mean keys, f32[QB, groups, KB]; of a group of heads: the mean of theirs."""
    queries = site.emit("pool_queries", site.kv, site.q, kind="mean")
    scores = site.emit("block_scores", site.kv, queries, site.pooled_keys("mean"), scale=scale)
    return site.shared(scores, groups, "mean")


def emit(site: Site, options: MeanPool) -> Selection:
    """Means, products, top-k."""
    groups = site.groups(options.share)
    if options.density >= 1 and not options.blocks:
        return Selection(site.everything(groups))
    scores = pooled_scores(site, groups, site.scale)
    forced = site.forced(groups, sink=1, local=2, dense_until=options.dense_until)
    if options.blocks:
        return Selection(site.emit("select_top_k", site.kv, scores, forced, k=options.blocks))
    return Selection(site.emit("select_share", site.kv, scores, forced, density=options.density))


METHOD = Method("mean_pool", MeanPool, emit)
