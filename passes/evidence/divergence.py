"""How far the predictions of two models are apart, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
ROWS = 32  # tokens whose log probabilities are in memory at once


@dataclass(frozen=True, eq=False)
class Divergence:
    """Of a model from another on one text.

    Args:
        kl: KL divergence in nats, one per token, f64[n].
        top1: Share of tokens whose most likely successor is the same.
        nll_change: Negative log-likelihood of the text, in nats per token, after less before.
    """

    kl: Array
    top1: float
    nll_change: float

    @property
    def mean(self) -> float:
        return float(self.kl.mean())

    @property
    def p99(self) -> float:
        return float(np.quantile(self.kl, 0.99))

    def worst(self, count: int = 3) -> list[int]:
        """Tokens with the largest divergence, worst first; NaN is worse than any number."""
        order = np.argsort(-np.where(np.isnan(self.kl), np.inf, self.kl), kind="stable")
        return [int(i) for i in order[:count]]

    def to_json(self, suffix: str = "") -> dict[str, float]:
        return {
            f"kl{suffix}": self.mean, f"kl_p99{suffix}": self.p99, f"top1{suffix}": self.top1,
            f"nll_change{suffix}": self.nll_change,
        }  # fmt: skip


def log_softmax(logits: Array) -> Array:
    """Log probabilities in f64, [n, V]."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def token_kl(p: Array, q: Array) -> Array:
    """KL divergence of q from p, log probabilities [n, V] -> [n]. Summed in f64 almost nothing can round below zero;
    it is none then."""
    kl: Array = np.maximum((np.exp(p) * (p - q)).sum(-1), 0.0)
    return kl


def diverge(before: Array, after: Array, ids: Array, targets: Array | None = None) -> Divergence:
    """Compare logits [n, V] of the ``ids`` [n] of one text. Token i + 1 is what token i should predict.

    Args:
        targets: What each of the n rows should predict, where they are not neighbours in the text; ``ids`` are not
            read then.
    """
    wanted = ids[1:] if targets is None else targets
    kl: list[Array] = []
    same = 0
    nll = 0.0
    for start, p, q in _chunks(before, after):
        kl.append(token_kl(p, q))
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
        known = wanted[start : start + p.shape[0]]
        rows = np.arange(known.size)
        nll += float((p[rows, known] - q[rows, known]).sum())
    return Divergence(np.concatenate(kl), same / before.shape[0], nll / max(wanted.size, 1))


def _chunks(before: Array, after: Array) -> Iterator[tuple[int, Array, Array]]:
    for start in range(0, before.shape[0], ROWS):
        yield start, log_softmax(before[start : start + ROWS]), log_softmax(after[start : start + ROWS])
