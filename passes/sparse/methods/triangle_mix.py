"""TriangleMix: shallow layers dense, deep layers in tri-shape.

    layer < starting_layer: dense;   else  c < sink or r - c < window, and the last rows see everything

Blocks: as in tri_shape, rounded up to whole blocks.
Dense:  starting_layer >= the number of layers; window >= S; last >= S.
Limits: as tri_shape; keys of deep layers come from approximated hidden states.
Source: TriangleMix, arXiv:2507.21526 (README of MInference, MIT). Its README calls the rows at the end ``last_n`` and
        its code reads ``n_last``, so that 100 rows are taken whatever is asked for; here it is ``last``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.methods.tri_shape import tail_spans
from fretsaw.passes.sparse.options import LastQueries
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class TriangleMix(LastQueries):
    """Args:
    starting_layer: First layer in tri-shape; none: the one after half of them.
    sink: First tokens that every row sees.
    window: Last tokens that every row sees, its own included.
    last: Rows at the end of the prompt that see everything.
    """

    method: Literal["triangle_mix"] = "triangle_mix"
    starting_layer: int | None = None
    sink: int = 8
    window: int = 512
    last: int = 128

    def lows(self) -> Mapping[str, float]:
        return {"starting_layer": 0, "sink": 0, "window": 1, "last": 0, "dense_until": 0}

    def whole_prompt(self) -> str:
        return "" if self.per_chunk or not self.last else "the last rows of the prompt see everything"

    def exact_dense(self, tokens: int) -> bool:
        return max(self.sink + self.window, self.last, self.dense_until) >= tokens

    def dense_at(self, layer: int, layers: int) -> str:
        start = layers // 2 if self.starting_layer is None else self.starting_layer
        return f"triangle_mix begins at layer {start}" if layer < start else ""


def emit(site: Site, options: TriangleMix) -> Selection:
    """The same spans for all heads of a deep layer."""
    return tail_spans(site, options.sink, options.window, options.last, options.dense_until)


METHOD = Method("triangle_mix", TriangleMix, emit, scope="layer", causal_selection=False, reads_scores=False)
