"""Prism: mean-pooled queries and keys, scored in a fast and a slow band of their rotary dimensions.

    band logits = q_band . k_band / (sqrt(band) * T),  T = sqrt(band / E) * rms(q_band)/rms(q) * rms(k_band)/rms(k)
    row and band: softmax over blocks, the heaviest while the mass before them is below p
    row: what either band keeps, block 0, the diagonal

Blocks: 64 positions (the source has 128). Means are over true tokens. The temperature is taken per query block, over
        the key blocks that it sees, instead of over all blocks of the prompt, so that a list depends on nothing later
        and not on chunks: a variant.
Dense:  p >= 1, decided before any score; one or two blocks.
Limits: rotary embedding of the whole head in the half layout only; others are refused.
Source: Prism, arXiv:2602.08426; fast pairs first ... dh/2, slow pairs from E/2 - dl/2 on, dh = E/2, dl = 3E/4.
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
class Prism(Shared):
    """Args:
    p: Share of the mass to keep in each band, 0 to 1.
    high: Share of a head in the band of fast dimensions.
    low: Share of a head in the band of slow dimensions; the two may overlap.
    """

    method: Literal["prism"] = "prism"
    p: float = 0.95
    high: float = 0.5
    low: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.high <= 1 or not 0 < self.low <= 1:
            raise ValueError("high and low are shares of a head, above 0 and at most 1")

    def lows(self) -> Mapping[str, float]:
        return {"p": 0, "dense_until": 0}

    def exact_dense(self, tokens: int) -> bool:
        return self.p >= 1 or tokens <= max(2 * BLOCK, self.dense_until)


def fits(site: Site, options: Prism) -> str:
    """Why the rotary embedding of a site has no such bands; empty where it has."""
    rope = site.graph.producer(site.q)
    if rope is None or rope.op != "rope":
        return "prism scores bands of a rotary embedding, and the queries come from none"
    if rope.attr("layout") != "half":
        return "prism knows rotary embeddings in the half layout, and pairs here lie side by side"
    if rope["inv_freq"].tensor.shape[0] != site.head_size // 2:
        return "prism knows rotary embeddings of the whole head, and a part of it turns here"
    return ""


def emit(site: Site, options: Prism) -> Selection:
    """Two bands, each softmax and top-p, and their union."""
    groups, pairs = site.groups(options.share), site.head_size // 2
    if options.p >= 1:
        return Selection(site.everything(groups))
    queries, keys = site.emit("pool_queries", site.kv, site.q, kind="mean"), site.pooled_keys("mean")
    forced = site.forced(groups, sink=1, local=1, dense_until=options.dense_until)

    def band(start: int, end: int) -> Value:
        scores = site.emit("band_scores", site.kv, queries, keys, scale=site.scale, start=start, end=end)
        masses = site.shared(site.emit("softmax_blocks", scores), groups)
        return site.emit("select_top_p", site.kv, masses, forced, p=options.p)

    fast = band(0, max(1, round(options.high * pairs)))
    slow = band(pairs - max(1, round(options.low * pairs)), pairs)
    return Selection(site.emit("union_blocks", fast, slow))


METHOD = Method("prism", Prism, emit, fits=fits)
