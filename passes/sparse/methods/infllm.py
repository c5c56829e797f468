"""InfLLM: sink, local window, and blocks whose representative keys look like the queries; one list for all heads.

    each key block: the 4 keys that queries in their local windows gave most weight; their mean stands for the block
    score(i, j) = mean(q of block i) . that mean, summed over all heads;  the best blocks outside the window
    positions=turned: init and the best blocks are read as if ``window`` slots away, however far they are

Blocks: 64 positions (the source has 128) and lists for 64 queries (the source: 512). Representatives are chosen with
        the queries of the prompt. positions=kept is the better choice within the context of a model; then,
        unlike in the source, a budget for everything is dense. positions=turned is the source's, beyond that context:
        blocks of the window are read where they are, in whole blocks, others at one distance. Blocks are scored where
        they are in both: a variant. Blocks of earlier steps are read where they are.
Dense:  window >= S; init + blocks * 64 + window >= S with positions that are kept.
Limits: representatives cost the products of a local attention, made by one thread per head of keys and sequence. turned
        needs a rotary embedding of whole heads, and all heads of a layer.
Source: InfLLM, arXiv:2402.04617.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.method import Far, Method, Selection
from fretsaw.passes.sparse.options import Listed
from fretsaw.passes.sparse.rotary_parts import BeforeRope, before_rope, lacks_rope
from fretsaw.passes.sparse.site import Site

WHOLE = "it chooses representative keys with all queries of the prompt"


@dataclass(frozen=True)
class InfLlm(Listed):
    """Args:
    blocks: Blocks outside sink and window that a row reads.
    init: First keys that it always reads.
    window: Last keys that it always reads.
    representatives: Keys that stand for a block.
    positions: Of the blocks outside the window: ``kept``, or ``turned`` to one distance.
    """

    method: Literal["infllm"] = "infllm"
    blocks: int = 32
    init: int = 128
    window: int = 4096
    representatives: int = 4
    positions: Literal["kept", "turned"] = "kept"

    def lows(self) -> Mapping[str, float]:
        return {"blocks": 1, "init": 0, "window": 1, "representatives": 1, "dense_until": 0}

    def whole_prompt(self) -> str:
        return WHOLE

    def whole_layer(self) -> bool:
        return self.positions == "turned"

    def exact_dense(self, tokens: int) -> bool:
        all_of = self.window + (self.init + self.blocks * BLOCK if self.positions == "kept" else 0)
        return max(all_of, self.dense_until) >= tokens


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
    earlier = site.emit("earlier_blocks", site.kv, groups=1)
    if options.positions == "kept":
        return Selection(site.emit("union_blocks", chosen, earlier))
    near = site.emit("union_blocks", site.forced(1, local=local, dense_until=options.dense_until), earlier)
    parts = before_rope(site)
    assert isinstance(parts, BeforeRope)
    return Selection(near, far=Far(chosen, options.window, parts.freq, parts.layout))


def fits(site: Site, options: InfLlm) -> str:
    """Why positions cannot be turned at a site; empty where they can, or stay."""
    return lacks_rope(site, options) if options.positions == "turned" else ""


METHOD = Method("infllm", InfLlm, emit, fits=fits, scope="layer")
