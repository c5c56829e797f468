"""LongHeads: every head reads the first block, the last two, and blocks whose representation looks like the query.

    each key block: its queries attend to its keys (positions within the block, no mask); the mean of the result attends
    to the keys; their mix stands for the block;  score(i, j) = mean(q of block i, before its rotary embedding) . it

Blocks: 64 positions (the source has 256) and lists for 64 queries (the source: for each). Positions stay as they are:
        the source packs the chosen blocks together to extend the context of a model, which this does not.
Dense:  blocks * 64 >= S; dense_until >= S.
Limits: representations cost half of a local attention over a block, for every head.
Source: LongHeads, arXiv:2402.10685.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import Listed
from fretsaw.passes.sparse.rotary_parts import BeforeRope, before_rope, lacks_rope
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class LongHeads(Listed):
    """Args:
    blocks: Blocks that a row reads, forced ones included.
    dense_until: Query blocks before this position read everything, in tokens.
    """

    method: Literal["longheads"] = "longheads"
    blocks: int = 64
    dense_until: int = 4096

    def lows(self) -> Mapping[str, float]:
        return {"blocks": 1, "dense_until": 0}

    def whole_prompt(self) -> str:
        return "it makes representations of blocks with the queries of the prompt"

    def exact_dense(self, tokens: int) -> bool:
        return max(self.blocks * BLOCK, self.dense_until) >= tokens


def emit(site: Site, options: LongHeads) -> Selection:
    """A list per head."""
    parts = before_rope(site)
    assert isinstance(parts, BeforeRope)
    keys = site.emit(
        "chunk_keys", site.kv, parts.q, parts.k, site.append["v"], parts.freq, scale=site.scale, layout=parts.layout
    )
    queries = site.emit("pool_queries", site.kv, parts.q, kind="mean")
    scores = site.emit("block_scores", site.kv, queries, keys, scale=1.0)
    forced = site.forced(site.heads, sink=1, local=2, dense_until=options.dense_until)
    chosen = site.emit("select_top_k", site.kv, scores, forced, k=options.blocks)
    return Selection(site.emit("union_blocks", chosen, site.emit("earlier_blocks", site.kv, groups=site.heads)))


METHOD = Method("longheads", LongHeads, emit, fits=lacks_rope, needs_pre_rope=True)
