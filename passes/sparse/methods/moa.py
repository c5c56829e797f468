"""MoA, elastic spans: a sink block and a window that grows with the position, other numbers in every head.

    row block that ends at position e: block 0 .. sink - 1, and the last alpha + beta * e tokens, in whole blocks

Blocks: 64 positions, as in the source. The source's window follows the length of the prompt and is the same in all of
        its rows; here it follows the row's own position: a variant, in which a prompt reads the same in any chunks. The
        last block has the source's window.
Dense:  beta = 1 and alpha >= 0; alpha >= S.
Limits: static: what lies outside the spans of all heads cannot be retrieved. Which head has which numbers is searched
        on calibration text and written as a plan (method=plan, an entry with method = "moa" for some heads).
Source: MoA, arXiv:2406.14909: steps of 1/8 for beta, one sink block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.ir.ops.select_extra import EIGHTHS, elastic_window
from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import Listed
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class MoA(Listed):
    """Args:
    alpha: Tokens of the window that do not depend on the position; may be negative.
    beta: Share of the position that is added, in eighths: 0, 0.125, ... 1.
    sink: First blocks that every row reads.
    dense_until: Query blocks before this position read everything, in tokens.
    decode: Hold the spans for decoding too.
    """

    method: Literal["moa"] = "moa"
    alpha: int = 1024
    beta: float = 0.125
    sink: int = 1
    dense_until: int = 0
    decode: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta <= 1 or self.beta * EIGHTHS != int(self.beta * EIGHTHS):
            raise ValueError(f"beta is one of 0, 0.125, ... 1, not {self.beta}")

    def lows(self) -> Mapping[str, float]:
        return {"sink": 0, "dense_until": 0}

    def exact_dense(self, tokens: int) -> bool:
        whole = elastic_window(tokens, self.alpha, int(self.beta * EIGHTHS)) >= tokens
        return (whole and (self.alpha >= 0)) or tokens <= self.dense_until


def emit(site: Site, options: MoA) -> Selection:
    """One span for all heads of the entry; a list per head of keys."""
    mask = site.emit(
        "elastic_blocks", site.kv, groups=site.kv_heads, sink=options.sink, alpha=options.alpha,
        beta=int(options.beta * EIGHTHS), dense_until=options.dense_until,
    )  # fmt: skip
    return Selection(mask, decode=options.decode)


METHOD = Method("moa", MoA, emit, phase="both", reads_scores=False, needs_calibration=True)
