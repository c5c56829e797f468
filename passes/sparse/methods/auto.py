"""Auto: a search on calibration text says which method each head has, and `fretsaw compile` puts its plan in.

    survey   every candidate on every head of the dense model, on calibration text
    choose   the cheapest that lose little, or those that lose least at a cost, by an integer program
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

HELD_TO_DENSITY = ("minference", "moa")


@dataclass(frozen=True)
class Auto(Sparse):
    """Args:
    space: What is searched: ``mixed``: spans, XAttention and pooled blocks; ``spans``, ``xattention``, ``mean_pool``,
        ``dhsa``, ``prism``, ``infllm_v2``: more settings of one method; ``minference``: a pattern per head at one
        budget; ``moa``: elastic spans at one mean density.
    max_kl: Largest mean divergence of the plan, in nats a token; 0: that of --max-kl, or 0.01. ``minference`` and
        ``moa`` are held to a budget instead, and their divergence is only measured.
    max_cost: Largest cost of the plan over dense attention's, choosing included, on a text of ``tokens`` tokens; 0:
        divergence is limited and not cost.
    density: Budget of ``minference`` (share of keys) and ``moa`` (mean density).
    tokens: Of a run of the search.
    dense_until: Query blocks before this position read everything, in tokens.
    write: The plan's file; empty: beside the artifact.
    survey: File of what the survey measured: read where it exists, written where it does not; empty: none.
    """

    method: Literal["auto"] = "auto"
    space: Literal["mixed", "spans", "xattention", "mean_pool", "dhsa", "prism", "infllm_v2", "minference", "moa"] = (
        "mixed"
    )
    max_kl: float = 0.0
    max_cost: float = 0.0
    density: float = 0.5
    tokens: int = 4096
    dense_until: int = DENSE_UNTIL
    write: str = ""
    survey: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_cost > 1:
            raise ValueError(f"max_cost is a share of dense attention's cost, at most 1, not {self.max_cost}")
        if self.max_kl and self.max_cost:
            raise ValueError("max_kl and max_cost are two limits: give one of them")
        if self.max_cost and self.space in HELD_TO_DENSITY:
            raise ValueError(f"the space {self.space} is held to density, not to max_cost")

    def lows(self) -> Mapping[str, float]:
        return {"max_kl": 0, "max_cost": 0, "density": 0, "tokens": 2, "dense_until": 0}

    def exact_dense(self, tokens: int) -> bool:
        return tokens <= self.dense_until

    def missing(self) -> str:
        return "a search on calibration text, which `fretsaw compile --calib FILE` runs"


def emit(site: Site, options: Auto) -> Selection:
    """Never called: a plan stands in its place."""
    raise AssertionError("auto has no ops of its own")


METHOD = Method("auto", Auto, emit, reads_scores=False, needs_calibration=True)
