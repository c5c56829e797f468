"""Quality in numbers: negative log-likelihood of a text, and distance from the checkpoint's own logits.

The text is cut into windows of ``context`` tokens that do not overlap; every token of a window but its first is
predicted from the ones before it in the window. Logits come some rows at a time, as the scorer gives them, so memory
does not grow with the context unless a model wants a window whole. All sums are in f64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from fretsaw.ir.errors import UsageError
from fretsaw.passes.evidence.divergence import log_softmax, token_kl
from fretsaw.tools.scorers import Logits, Scorer

SLICE = 128  # rows whose log probabilities are in memory at once


@dataclass
class Tally:
    """Sums over predicted tokens. ``kl`` holds one number per token, in nats."""

    tokens: int = 0
    windows: int = 0
    nll: float = 0.0
    reference_nll: float = 0.0
    same_top: int = 0
    kl: list[np.ndarray] = field(default_factory=list)

    def result(self, compared: bool) -> dict[str, float | int]:
        """The numbers that ``fretsaw eval`` prints; NLL and KL in nats a token."""
        nll = self.nll / self.tokens
        out: dict[str, float | int] = {
            "windows": self.windows, "tokens": self.tokens, "nll": nll, "perplexity": float(np.exp(nll)),
        }  # fmt: skip
        if compared:
            kl = np.concatenate(self.kl)
            reference = self.reference_nll / self.tokens
            out |= {
                "reference_nll": reference,
                "reference_perplexity": float(np.exp(reference)),
                "kl_mean": float(kl.mean()),
                "kl_p99": float(np.quantile(kl, 0.99)),
                "kl_max": float(kl.max()),
                "top1_agreement": self.same_top / self.tokens,
            }
        return out


def windows(ids: Sequence[int], context: int, limit: int | None) -> Iterator[Sequence[int]]:
    """Windows of ``context`` tokens; the last one may be shorter, one of a single token predicts nothing."""
    for number, start in enumerate(range(0, len(ids), context)):
        part = ids[start : start + context]
        if len(part) < 2 or (limit is not None and number >= limit):
            return
        yield part


def evaluate(
    ids: Sequence[int],
    context: int,
    ours: Scorer,
    reference: Scorer | None = None,
    limit: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, float | int]:
    """Score ``ids``; with a ``reference``, also compare distributions token by token.

    Raises:
        UsageError: fewer than two tokens.
    """
    tally = Tally()
    for window in windows(ids, context, limit):
        done = 0
        for mine, other in in_step(window[:-1], ours, reference):
            targets = np.asarray(window[done + 1 : done + 1 + len(mine)])
            _score(tally, targets, mine, other)
            done += len(mine)
            if progress is not None:
                progress(len(mine))
        tally.windows += 1
    if tally.tokens == 0:
        raise UsageError(f"the text has {len(ids)} tokens, at least 2 are needed")
    return tally.result(reference is not None)


def in_step(ids: Sequence[int], ours: Scorer, reference: Scorer | None) -> Iterator[tuple[Logits, Logits | None]]:
    """Logits of the same tokens from both, at most :data:`SLICE` rows at a time, however each cuts its window."""
    other: Logits | None = None
    theirs = iter(()) if reference is None else reference.rows(ids)
    for mine in ours.rows(ids):
        while len(mine):
            if reference is not None and (other is None or not len(other)):
                other = next(theirs)
            count = min(SLICE, len(mine), SLICE if other is None else len(other))
            yield mine[:count], None if other is None else other[:count]
            mine, other = mine[count:], None if other is None else other[count:]


def _score(tally: Tally, targets: np.ndarray, mine: Logits, other: Logits | None) -> None:
    rows = np.arange(targets.size)
    q = log_softmax(mine)  # [n, V]
    tally.tokens += targets.size
    tally.nll -= float(q[rows, targets].sum())
    if other is None:
        return
    p = log_softmax(other)
    tally.reference_nll -= float(p[rows, targets].sum())
    tally.same_top += int((p.argmax(-1) == q.argmax(-1)).sum())
    tally.kl.append(token_kl(p, q))
