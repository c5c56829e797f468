"""What the checks are told: on which tokens passes are compared, and which losses stop the compile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fretsaw.ir.errors import UsageError


@dataclass(frozen=True)
class EvidenceOptions:
    """Settings of the checks of one compile.

    Args:
        check: Run the graph before and after every pass. False stamps every pass ``unchecked: --no-check``.
        calib: Token ids of the calibration text; empty: a seeded sequence of ``tokens`` ids.
        calib_source: Name of that text for people, as it stands in the ledger.
        tokens: Most tokens that a check runs over; a longer calibration text is cut. 0: 512 of a calibration text,
            128 of a seeded sequence, which more tokens would not make a better one.
        long_tokens: Tokens that a pass is measured on which leaves the first ones of a text alone (sparse attention);
            twice as many as it leaves alone where that is more. A shorter text gives fewer.
        max_kl: Largest mean KL divergence, in nats per token, from the graph before a pass and from the first graph
            to the graph after it; None: no limit. Holds for passes of class ``budget``.
        min_top1: Smallest share of tokens whose most likely successor stays the same, 0 to 1; None: no limit.
        seed: Of the inputs that no text gives.
        mode: Compare whole graphs, or block by block; ``auto``: by what a run costs.

    Raises:
        UsageError: a limit or a count that no run could meet.
    """

    check: bool = True
    calib: tuple[int, ...] = ()
    calib_source: str = ""
    tokens: int = 0
    long_tokens: int = 4096
    max_kl: float | None = None
    min_top1: float | None = None
    seed: int = 0
    mode: Literal["auto", "whole", "blocks"] = "auto"

    def __post_init__(self) -> None:
        if self.tokens == 0:
            object.__setattr__(self, "tokens", 512 if self.calib else 128)
        if self.tokens < 2:
            raise UsageError(f"checks need at least 2 tokens, not {self.tokens}")
        if len(self.calib) == 1:
            raise UsageError("the calibration text is one token long, at least 2 are needed")
        if self.max_kl is not None and not self.max_kl >= 0:
            raise UsageError(f"--max-kl is a divergence in nats, 0 or more; not {self.max_kl}")
        if self.min_top1 is not None and not 0 <= self.min_top1 <= 1:
            raise UsageError(f"--min-top1 is a share of tokens, 0 to 1; not {self.min_top1}")
        if not self.check and (self.max_kl is not None or self.min_top1 is not None):
            raise UsageError("--max-kl and --min-top1 are checks; with --no-check nothing would hold them")
