"""MASFormer: full attention in a few layers, a sliding window in the others.

    layer in full_layers: dense;   else  r - c < window

Blocks: the window holds to the token.
Dense:  every layer full; window >= S.
Limits: the paper trains models for this. Which of its layers are full and its window could not be verified from public
        sources, so both have to be given.
Source: MASFormer, arXiv:2310.12442 (abstract).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.methods.lambda_mask import spans
from fretsaw.passes.sparse.options import Sparse
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class Masformer(Sparse):
    """Args:
    full_layers: Layers with full attention.
    window: Last tokens that a row sees in the others, its own included.
    decode: Hold the window for decoding too, as models trained for it expect.
    """

    method: Literal["masformer"] = "masformer"
    full_layers: tuple[int, ...] = ()
    window: int = 0
    decode: bool = True

    def missing(self) -> str:
        return "" if self.full_layers and self.window else "full_layers and window"

    def lows(self) -> Mapping[str, float]:
        return {"window": 0}

    def exact_dense(self, tokens: int) -> bool:
        return self.window >= tokens

    def dense_at(self, layer: int, layers: int) -> str:
        return f"layer {layer} is one of full_layers" if layer in self.full_layers else ""


def emit(site: Site, options: Masformer) -> Selection:
    """One window for all heads."""
    return spans(site, (0,) * site.heads, (options.window,) * site.heads, options.decode)


METHOD = Method("masformer", Masformer, emit, phase="both", scope="layer", reads_scores=False, needs_weights=True)
