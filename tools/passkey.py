"""The passkey test: a number hidden in filler text, asked for at the end (Mohtashami and Jaggi, arXiv:2305.16300, 4.2).

A prompt is read as a user's would be, in one call, then the digits one token at a time. Beside whether greedy decoding
gives the whole number there are two measures that still say something where a small model never does: the negative
log-likelihood of its tokens, and the rank of each among the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Protocol

import numpy as np

from fretsaw.ir.errors import UsageError
from fretsaw.passes.evidence.divergence import log_softmax
from fretsaw.tools.scorers import Logits

INTRO = (
    "There is an important piece of information hidden inside a lot of irrelevant text. Find it and memorize it. You "
    "will be asked about it.\n"
)
FILLER = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = " The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "\nWhat is the pass key? The pass key is"
ANSWER = " {key}"

Encode = Callable[[str], list[int]]


class Reader(Protocol):
    """One sequence of a model: appends tokens and gives the logits [1, V] after the last."""

    def reset(self) -> None: ...

    def forward(self, ids: Sequence[int], last_only: bool) -> Logits: ...


@dataclass(frozen=True)
class Trial:
    """One prompt of ``length`` tokens, the answer's included, with the key at ``depth`` percent of the filler."""

    length: int
    depth: float
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """What a model makes of a trial.

    Args:
        exact: Greedy decoding gives the whole answer.
        nll: Negative log-likelihood in nats, mean over the answer's tokens, each after the right ones before it.
        rank: Mean rank of the answer's tokens among the vocabulary; 1: the most likely.
    """

    exact: bool
    nll: float
    rank: float


@dataclass(frozen=True)
class Cell:
    """Means over the trials of one length and depth."""

    length: int
    depth: float
    trials: int
    exact: float
    nll: float
    rank: float


class Prompts:
    """Makes trials out of token ids; the same seed gives the same ones.

    Args:
        encode: Text to ids, without special tokens.
        filler: Text that is repeated; default: the paper's sentences.
        start: Ids that every text of the model begins with.
    """

    def __init__(self, encode: Encode, filler: str = FILLER, start: Sequence[int] = (), seed: int = 0) -> None:
        self._encode, self._filler, self._seed = encode, encode(filler), seed
        self._head, self._question = [*start, *encode(INTRO)], encode(QUESTION)
        if not self._filler:
            raise UsageError("the filler text of --passkey is empty")

    def trial(self, length: int, depth: float, number: int) -> Trial:
        """The prompt with key number ``number``.

        Raises:
            UsageError: ``length`` tokens do not hold the key and the question.
        """
        key = str(Random(f"{self._seed} {length} {depth} {number}").randint(10000, 99999))
        needle, answer = self._encode(NEEDLE.format(key=key)), self._encode(ANSWER.format(key=key))
        room = length - sum(map(len, (self._head, needle, self._question, answer)))
        if room < 0:
            raise UsageError(f"--lengths must be at least {length - room} tokens, is {length}")
        text = (self._filler * (room // len(self._filler) + 1))[:room]
        at = round(room * depth / 100)
        if at < room:
            at -= at % len(self._filler)  # between repetitions, so that no sentence is cut
        prompt = (*self._head, *text[:at], *needle, *text[at:], *self._question)
        return Trial(length, depth, prompt, tuple(answer))


def ask(reader: Reader, trial: Trial) -> Outcome:
    """Read the prompt in one call and score the answer token by token."""
    reader.reset()
    logits = reader.forward(trial.prompt, True)
    nll, ranks = 0.0, []
    for i, token in enumerate(trial.answer):
        row = log_softmax(np.asarray(logits))[0]
        nll -= float(row[token])
        # Greedy decoding takes the lowest id among equals.
        ranks.append(1 + int((row > row[token]).sum()) + int((row[:token] == row[token]).sum()))
        if i + 1 < len(trial.answer):
            logits = reader.forward([token], True)
    return Outcome(max(ranks) == 1, nll / len(ranks), float(np.mean(ranks)))


def cells(trials: Iterable[Trial], reader: Reader, progress: Callable[[float], None]) -> Iterator[Cell]:
    """Run trials, which come sorted by length and depth, and average those of each."""
    asked: list[tuple[Trial, Outcome]] = []
    for trial in trials:
        if asked and (asked[0][0].length, asked[0][0].depth) != (trial.length, trial.depth):
            yield _mean(asked)
            asked = []
        asked.append((trial, ask(reader, trial)))
        progress(trial.length)
    if asked:
        yield _mean(asked)


def _mean(asked: Sequence[tuple[Trial, Outcome]]) -> Cell:
    trial, outcomes = asked[0][0], [outcome for _, outcome in asked]
    exact, nll, rank = (float(np.mean([getattr(o, name) for o in outcomes])) for name in ("exact", "nll", "rank"))
    return Cell(trial.length, trial.depth, len(asked), exact, nll, rank)


def summary(found: Sequence[Cell]) -> dict[str, object]:
    """The cells, and means over all of them, for JSON."""
    means = {name: float(np.mean([getattr(c, name) for c in found])) for name in ("exact", "nll", "rank")}
    return {**means, "cells": [asdict(c) for c in found]}
