"""InfLLM: sink, local window, and blocks whose representative keys look like the queries; one list for all heads.

    each key block: the 4 keys that queries in their local windows gave most weight; their mean stands for the block
    score(i, j) = mean(q of block i) . that mean, summed over all heads;  the best blocks outside the window

Blocks: 64 positions (the source has 128) and lists for 64 queries (the source: 512). Representatives are chosen with
        the queries of the prompt. Positions stay as they are: the source turns distant keys to one distance to extend
        the context of a model, which this does not; so, unlike there, a budget for everything is dense.
Dense:  window >= S; init + blocks * 64 + window >= S.
Limits: representatives cost the products of a local attention, made by one thread per head of keys and sequence.
Source: InfLLM, arXiv:2402.04617.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import Listed
from fretsaw.passes.sparse.site import Site

WHOLE = "it chooses representative keys with all queries of the prompt"


@dataclass(frozen=True)
class InfLlm(Listed):
    """Args:
    blocks: Blocks outside sink and window that a row reads.
    init: First keys that it always reads.
    window: Last keys that it always reads.
    representatives: Keys that stand for a block.
    """

    method: Literal["infllm"] = "infllm"
    blocks: int = 32
    init: int = 128
    window: int = 4096
    representatives: int = 4

    def lows(self) -> Mapping[str, float]:
        return {"blocks": 1, "init": 0, "window": 1, "representatives": 1, "dense_until": 0}

    def whole_prompt(self) -> str:
        return WHOLE

    def exact_dense(self, tokens: int) -> bool:
        return max(self.init + self.window + self.blocks * BLOCK, self.dense_until) >= tokens


def emit(site: Site, options: InfLlm) -> Selection:
    """One list for the layer."""
    keys = site.emit(
        "representative_keys", site.kv, site.q, layer=site.layer, scale=site.scale, kv_heads=site.kv_heads,
        window=options.window, count=options.representatives,
    )  # fmt: skip
    queries = site.emit("pool_queries", site.kv, site.q, kind="mean")
    scores = site.shared(site.emit("block_scores", site.kv, queries, keys, scale=site.scale), 1)
    init, local = -(-options.init // BLOCK), -(-options.window // BLOCK) + 1
    forced = site.forced(1, sink=init, local=local, dense_until=options.dense_until)
    chosen = site.emit("select_top_k", site.kv, scores, forced, k=init + local + options.blocks)
    return Selection(site.emit("union_blocks", chosen, site.emit("earlier_blocks", site.kv, groups=1)))


METHOD = Method("infllm", InfLlm, emit, scope="layer")
