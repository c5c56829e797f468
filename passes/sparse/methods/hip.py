"""HiP: the best blocks by hierarchical halving, which looks at log(n / k) * 2k keys instead of all.

    the visible blocks in k groups; each group in two halves; a half is worth the largest product of the query block's
    odd rows with a key in the middle of its first block; the best k halves stay; again, until groups are blocks

Blocks: key blocks of 64 and query blocks of 64 (the source: 1 to 8 keys, 32 queries): coarser, and kind to the cache.
        The representative key is the middle one, as in InfiniteHiP's descent; HiP takes a whole small block. Sink and
        window blocks are forced beside the k. Stages, offloading and position tricks of InfiniteHiP are not built.
Dense:  mask_k >= S; window >= S.
Limits: a greedy descent: it may lose the best block behind a poor representative, and a larger k is no superset.
Source: HiP, arXiv:2406.09827; InfiniteHiP, arXiv:2502.08910.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import Listed
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class Hip(Listed):
    """Args:
    mask_k: Keys that a row finds by halving, in tokens.
    sink: First keys that it always reads.
    window: Last keys that it always reads.
    """

    method: Literal["hip"] = "hip"
    mask_k: int = 512
    sink: int = 64
    window: int = 128

    def lows(self) -> Mapping[str, float]:
        return {"mask_k": BLOCK, "sink": 0, "window": 0, "dense_until": 0}

    def exact_dense(self, tokens: int) -> bool:
        return max(self.mask_k, self.window, self.dense_until) >= tokens


def emit(site: Site, options: Hip) -> Selection:
    """A descent per head."""
    sink, local, blocks = (-(-n // BLOCK) for n in (options.sink, options.window, options.mask_k))
    forced = site.forced(site.heads, sink=sink, local=local + 1, dense_until=options.dense_until)
    mask = site.emit("halving_blocks", site.kv, site.q, forced, layer=site.layer, kv_heads=site.kv_heads, blocks=blocks)
    return Selection(mask)


METHOD = Method("hip", Hip, emit)
