"""Lambda mask: the first tokens (sink) and a sliding window, the same in every head.

    row r sees key c  <=>  c <= r and (c < sink or r - c < window)

Blocks: spans hold to the token; blocks that they touch are listed. Positions stay as they are: LM-Infinite's cap of the
        relative distance and StreamingLLM's renumbering extend the context of a model, which this does not.
Dense:  window >= S, or sink + window >= S.
Decode: everything, unless ``decode``; then what leaves the window is never read again, as StreamingLLM does.
Limits: what lies outside the window is lost to the head: no method for retrieval.
Source: LM-Infinite, arXiv:2308.16137; StreamingLLM, arXiv:2309.17453; the A-shape of MInference, arXiv:2407.02490.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import Sparse
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class LambdaMask(Sparse):
    """Args:
    sink: First tokens that every row sees.
    window: Last tokens that every row sees, its own included.
    decode: Hold the spans for decoding too.
    """

    method: Literal["lambda_mask"] = "lambda_mask"
    sink: int = 128
    window: int = 1920
    decode: bool = False

    def lows(self) -> Mapping[str, float]:
        return {"sink": 0, "window": 1}

    def exact_dense(self, tokens: int) -> bool:
        return self.sink + self.window >= tokens


def spans(site: Site, sink: tuple[int, ...], window: tuple[int, ...], decode: bool = False) -> Selection:
    """Exact spans, per head, in tokens; window 0: the head sees everything."""
    mask = site.emit("span_blocks", site.kv, sink=sink, window=window)
    return Selection(mask, sink, window, decode)


def emit(site: Site, options: LambdaMask) -> Selection:
    """One span for all heads."""
    return spans(site, (options.sink,) * site.heads, (options.window,) * site.heads, options.decode)


METHOD = Method("lambda_mask", LambdaMask, emit, scope="layer", reads_scores=False)
