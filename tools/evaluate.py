"""Quality in numbers: negative log-likelihood of a text, and distance from the checkpoint's own logits.

The text is cut into windows of ``context`` tokens that do not overlap; every token of a window but its first is
predicted from the ones before it in the window. Logits are read a block of tokens at a time, so memory does not
grow with the context. All sums are in f64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from fretsaw.ir.errors import UsageError
from fretsaw.passes.evidence.divergence import log_softmax, token_kl

Logits = np.ndarray  # [n, V] float
BLOCK = 128  # tokens whose logits are held at once


class Scorer(Protocol):
    """Something that reads a window block by block and gives the logits of every token of the block."""

    def begin(self) -> None: ...

    def block(self, ids: Sequence[int]) -> Logits: ...


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
        ours.begin()
        if reference is not None:
            reference.begin()
        for start in range(0, len(window) - 1, BLOCK):
            block = window[start : min(start + BLOCK, len(window) - 1)]
            targets = np.asarray(window[start + 1 : start + 1 + len(block)])
            _score(tally, targets, ours.block(block), reference.block(block) if reference is not None else None)
            if progress is not None:
                progress(len(block))
        tally.windows += 1
    if tally.tokens == 0:
        raise UsageError(f"the text has {len(ids)} tokens, at least 2 are needed")
    return tally.result(reference is not None)


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


class ArtifactScorer:
    """Logits of an artifact, through the runtime."""

    def __init__(self, path: Path, context: int, threads: int) -> None:
        from fretsaw.runtime import Model

        self.model = Model(path, threads=threads)
        if not 2 <= context <= self.model.context:
            raise UsageError(f"--context must be 2 to {self.model.context} tokens, is {context}")
        self._session = self.model.session(context)

    def begin(self) -> None:
        self._session.reset()

    def block(self, ids: Sequence[int]) -> Logits:
        return self._session.forward(ids)


class CheckpointScorer:
    """Logits of a checkpoint in f32, by transformers, with its own cache between blocks."""

    def __init__(self, path: Path, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        if not (path / "config.json").is_file():
            raise UsageError(f"{path} is not a checkpoint directory", hint="it must hold config.json")
        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True).eval()
        self._cache: object = None

    def begin(self) -> None:
        self._cache = None

    def block(self, ids: Sequence[int]) -> Logits:
        with self._torch.inference_mode():
            out = self._model(self._torch.tensor([list(ids)]), past_key_values=self._cache, use_cache=True)
        self._cache = out.past_key_values
        logits: Logits = out.logits[0].numpy()
        return logits
