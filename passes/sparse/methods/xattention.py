"""XAttention: blocks by the sums of their antidiagonals, as few as hold a share of the mass.

    cell (i, j) of stride x stride: mean over its antidiagonal of q.k, softmax over j, summed per block
    row: block 0 and the diagonal, then the heaviest while the mass kept is below threshold of the row's

Blocks: 64 positions (the source has 128; OpenVINO GenAI 64). Cells are cut at the true length instead of padded with
        zeros. Lists shared in a group take the sum of the heads' masses.
Dense:  threshold >= 1, decided before any score; one or two blocks.
Limits: selection costs 1/(2 stride) of dense attention.
Source: XAttention, arXiv:2503.16428.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import Shared
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class XAttention(Shared):
    """Args:
    threshold: Share of the mass to keep, 0 to 1.
    stride: Side of a cell, a divisor of 64.
    norm: Divides the logits once more.
    last: Rows at the end of the prompt that see everything.
    per_chunk: Take the last rows of every step, so that prompts may come in chunks.
    """

    method: Literal["xattention"] = "xattention"
    threshold: float = 0.9
    stride: int = 8
    norm: float = 1.0
    last: int = 0
    per_chunk: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if BLOCK % self.stride:
            raise ValueError(f"stride divides {BLOCK}, {self.stride} does not")
        if not self.norm > 0:
            raise ValueError(f"norm is more than 0, not {self.norm}")

    def lows(self) -> Mapping[str, float]:
        return {"threshold": 0, "stride": 1, "last": 0, "dense_until": 0}

    def whole_prompt(self) -> str:
        return "" if self.per_chunk or not self.last else "the last rows of the prompt see everything"

    def exact_dense(self, tokens: int) -> bool:
        return self.threshold >= 1 or tokens <= max(2 * BLOCK, self.dense_until, self.last)


def emit(site: Site, options: XAttention) -> Selection:
    """Cells, masses of blocks, top-p."""
    groups = site.groups(options.share)
    if options.threshold >= 1:
        return Selection(site.everything(groups))
    scores = site.emit(
        "antidiagonal_scores", site.kv, site.q, layer=site.layer, scale=site.scale, kv_heads=site.kv_heads,
        stride=options.stride, norm=options.norm,
    )  # fmt: skip
    forced = site.forced(groups, sink=1, local=1, dense_until=options.dense_until, last_rows=options.last)
    return Selection(site.emit("select_top_p", site.kv, site.shared(scores, groups), forced, p=options.threshold))


METHOD = Method("xattention", XAttention, emit)
