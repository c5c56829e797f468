"""Quest: decoding reads the pages whose keys could have the largest products with the query.

    bound(page) = scale * sum_d max(q_d * least key_d, q_d * greatest key_d)  >=  every logit of the page
    row: the current page, then the best bounds up to budget / 64 pages

Blocks: pages of 64 keys (the source has 16): bounds are looser, so that the same budget finds less. Prompts stay dense.
        Least and greatest keys are kept beside the pages (``key_bounds`` in docs/artifact.md), f32: 2 E numbers for 64
        keys and values of E, which makes the cache larger by 1.6 % (f32), 3.1 % (f16) or 5.9 % (int8, E = 64).
Dense:  budget >= S.
Source: Quest, arXiv:2406.10774; its first two layers stay dense.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import Sparse
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class Quest(Sparse):
    """Args:
    budget: Keys that a decoded token reads.
    first_dense: First layers that stay dense.
    share: One list per ``head``, or one per ``group`` of heads with the same keys (by their largest bound).
    """

    method: Literal["quest"] = "quest"
    budget: int = 1024
    first_dense: int = 2
    share: Literal["head", "group"] = "head"

    def lows(self) -> Mapping[str, float]:
        return {"budget": BLOCK, "first_dense": 0}

    def exact_dense(self, tokens: int) -> bool:
        return self.budget >= tokens

    def decodes(self) -> bool:
        return True

    def dense_at(self, layer: int, layers: int) -> str:
        return f"quest leaves the first {self.first_dense} layers dense" if layer < self.first_dense else ""


def emit(site: Site, options: Quest) -> Selection:
    """Bounds for rows that decode, everything for prompts."""
    groups = site.groups(options.share)
    kinds = {"layer": site.layer, "kv_heads": site.kv_heads, "size": site.head_size, "decode": True}
    least, most = (site.emit("pool_keys", site.kv, kind=kind, **kinds) for kind in ("min", "max"))
    scores = site.emit("bound_scores", site.kv, site.q, least, most, scale=site.scale, decode=True, single=True)
    forced = site.forced(groups, local=1)
    chosen = site.emit("select_top_k", site.kv, site.shared(scores, groups, "max"), forced, k=options.budget // BLOCK)
    prompts = site.emit("prompt_blocks", site.kv, groups=groups)
    return Selection(site.emit("union_blocks", chosen, prompts), decode=True)


METHOD = Method("quest", Quest, emit, phase="decode")
