"""Tri-shape: sink and window, and the last rows of a prompt see everything.

    rows before the last ones: c < sink or r - c < window;   last rows: every c <= r

Blocks: spans and last rows are rounded up to whole blocks, because the window of a head cannot be lifted for some of
        its rows inside a block: a superset of the token form.
Dense:  window >= S, or last >= S.
Limits: justified for what is generated after the prompt; logits of the prompt's middle are off by design.
Source: tri-shape in MInference's repository (MIT) and SCBench, arXiv:2412.10319.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import LastQueries
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class TriShape(LastQueries):
    """Args:
    sink: First tokens that every row sees.
    window: Last tokens that every row sees, its own included.
    last: Rows at the end of the prompt that see everything.
    """

    method: Literal["tri_shape"] = "tri_shape"
    sink: int = 128
    window: int = 3968
    last: int = 100

    def lows(self) -> Mapping[str, float]:
        return {"sink": 0, "window": 1, "last": 0, "dense_until": 0}

    def whole_prompt(self) -> str:
        return "" if self.per_chunk or not self.last else "the last rows of the prompt see everything"

    def exact_dense(self, tokens: int) -> bool:
        return max(self.sink + self.window, self.last, self.dense_until) >= tokens


def tail_spans(site: Site, sink: int, window: int, last: int, dense_until: int) -> Selection:
    """Spans of whole blocks, and everything for the blocks of the last rows."""
    heads = site.heads
    mask = site.emit(
        "span_blocks", site.kv, sink=(sink,) * heads, window=(window,) * heads, dense_until=dense_until, last_rows=last
    )
    return Selection(mask)


def emit(site: Site, options: TriShape) -> Selection:
    """The same spans for all heads."""
    return tail_spans(site, options.sink, options.window, options.last, options.dense_until)


METHOD = Method("tri_shape", TriShape, emit, scope="layer", causal_selection=False, reads_scores=False)
