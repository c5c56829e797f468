"""Dense: every block is listed. For heads that a plan leaves as they are; the result has the bits of dense attention.

Dense:  always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import Sparse
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class Dense(Sparse):
    """No options of its own."""

    method: Literal["dense"] = "dense"

    def exact_dense(self, tokens: int) -> bool:
        return True


def emit(site: Site, options: Dense) -> Selection:
    """All causal blocks."""
    return Selection(site.everything(site.kv_heads))


METHOD = Method("dense", Dense, emit, scope="layer", reads_scores=False)
