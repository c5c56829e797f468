"""Auto: a search on calibration text says which method each head has, and `fretsaw compile` puts its plan in.

    survey   every candidate on every head of the dense model, on calibration text
    choose   the cheapest that lose little, by an integer program
    verify   the sparse model against the dense one, whole; a plan that diverges too much is chosen anew

Blocks: as the methods say that the plan names.
Limits: it needs --calib with more tokens than ``dense_until``, and minutes. The plan is written beside the artifact as
        TOML and compiles to the same artifact again: sparse_attention:method=plan,plan=FILE.
Source: docs/sparse_auto.md; searches of MInference, arXiv:2407.02490, XAttention, arXiv:2503.16428, MoA,
        arXiv:2406.14909, for their ``space``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import DENSE_UNTIL, Sparse
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class Auto(Sparse):
    """Args:
    space: What is searched: ``mixed``: spans, XAttention and pooled blocks; ``xattention``: a threshold per head;
        ``minference``: a pattern per head at one budget; ``moa``: elastic spans at one mean density.
    max_kl: Largest mean divergence of the plan, in nats a token; 0: that of --max-kl, or 0.01. ``minference`` and
        ``moa`` are held to a budget instead, and their divergence is only measured.
    density: Budget of ``minference`` (share of keys) and ``moa`` (mean density).
    tokens: Of a run of the search.
    dense_until: Query blocks before this position read everything, in tokens.
    write: The plan's file; empty: beside the artifact.
    """

    method: Literal["auto"] = "auto"
    space: Literal["mixed", "xattention", "minference", "moa"] = "mixed"
    max_kl: float = 0.0
    density: float = 0.5
    tokens: int = 4096
    dense_until: int = DENSE_UNTIL
    write: str = ""

    def lows(self) -> Mapping[str, float]:
        return {"max_kl": 0, "density": 0, "tokens": 2, "dense_until": 0}

    def exact_dense(self, tokens: int) -> bool:
        return tokens <= self.dense_until

    def missing(self) -> str:
        return "a search on calibration text, which `fretsaw compile --calib FILE` runs"


def emit(site: Site, options: Auto) -> Selection:
    """Never called: a plan stands in its place."""
    raise AssertionError("auto has no ops of its own")


METHOD = Method("auto", Auto, emit, reads_scores=False, needs_calibration=True)
