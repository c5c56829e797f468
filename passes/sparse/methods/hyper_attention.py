"""HyperAttention, blocks: those whose hash is nearest, and some drawn at random.

    bucket = rank in the Gray code of the signs of a mean on 7 random planes
    row: the diagonal, the blocks with the nearest buckets, and blocks drawn by a hash of row and block

Blocks: buckets are of block means, not of single queries and keys, which are not sorted: rows would lose their blocks
        of cache. Drawn blocks get no weight for what they stand for, so no residual is estimated. A variant in which
        hashing and sampling are left of the method, and its guarantees are not.
Dense:  dense_until >= S (the source's min_seq_len); (blocks + sampled) * 64 >= S.
Limits: random, from a seed; poor at retrieval, as the source.
Source: HyperAttention, arXiv:2310.05869.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fretsaw.ir.kv import BLOCK
from fretsaw.ir.ops.select_hash import MOST_PLANES
from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import Listed
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class HyperAttention(Listed):
    """Args:
    blocks: Blocks by their buckets that a row reads, its own included.
    sampled: Blocks drawn at random beside them.
    planes: Bits of a bucket.
    seed: Of planes and draws.
    dense_until: Query blocks before this position read everything, in tokens.
    """

    method: Literal["hyper_attention"] = "hyper_attention"
    blocks: int = 8
    sampled: int = 4
    planes: int = 7
    seed: int = 0
    dense_until: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.planes > MOST_PLANES:
            raise ValueError(f"planes is at most {MOST_PLANES}, not {self.planes}")

    def lows(self) -> Mapping[str, float]:
        return {"blocks": 1, "sampled": 0, "planes": 1, "seed": 0, "dense_until": 0}

    def exact_dense(self, tokens: int) -> bool:
        return max(self.blocks * BLOCK, self.sampled * BLOCK, self.dense_until) >= tokens


def emit(site: Site, options: HyperAttention) -> Selection:
    """Buckets and draws of every head."""
    rng = np.random.default_rng([options.seed, site.layer])
    planes = site.const("planes", rng.standard_normal((site.head_size, options.planes)).astype(np.float32))
    queries, keys = site.emit("pool_queries", site.kv, site.q, kind="mean"), site.pooled_keys("mean")
    scores = site.emit("hash_scores", site.kv, queries, keys, planes)
    forced = site.forced(site.heads, local=1, dense_until=options.dense_until)
    chosen = site.emit("select_top_k", site.kv, scores, forced, k=options.blocks)
    drawn = site.emit(
        "sampled_blocks", site.kv, groups=site.heads, count=options.sampled, seed=options.seed + 1000 * site.layer
    )
    return Selection(site.emit("union_blocks", chosen, drawn))


METHOD = Method("hyper_attention", HyperAttention, emit, random=True)
