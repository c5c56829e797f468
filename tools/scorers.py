"""Logits of a window of tokens, from an artifact through the runtime or from a checkpoint through transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from fretsaw.ir.errors import UsageError

Logits = np.ndarray  # [n, V] float
BLOCK = 128  # tokens whose logits are held at once, where the model does not care


class Scorer(Protocol):
    """Something that reads a fresh window and gives the logits of each of its tokens, some rows at a time."""

    def rows(self, ids: Sequence[int]) -> Iterator[Logits]: ...


def cuts(count: int, size: int, align: int) -> list[tuple[int, int]]:
    """Parts of ``count`` tokens, at most ``size`` each, cut at multiples of ``align``.

    With ``align`` over 1 no part is a single token, which a program would take for decoding; a window of one is one.
    """
    size = size // align * align
    ends = [*range(size, count, size), count]
    if align > 1 and len(ends) > 1 and ends[-1] - ends[-2] == 1:
        ends[-2] -= align
    return list(zip([0, *ends], ends, strict=False))


class ArtifactScorer:
    """An artifact, through the runtime.

    A dense program gives the same logits however its prompt is cut, so it reads :data:`BLOCK` tokens at a time. A
    sparse one is given as much at once as a step takes, as in a prompt of a user; a whole window where it asks for it.

    Raises:
        UsageError: a window of ``context`` tokens does not fit.
    """

    def __init__(self, path: Path, context: int, threads: int) -> None:
        from fretsaw.runtime import Model

        self.model = Model(path, threads=threads)
        if not 2 <= context <= self.model.context:
            raise UsageError(f"windows must have 2 to {self.model.context} tokens, not {context}", where=str(path))
        program = self.model.manifest["program"]
        assert isinstance(program, Mapping)
        chunk = int(program["chunk_tokens"])
        self.align = int(program.get("chunk_align", 1))
        self.whole = bool(program.get("whole_prompts", False))
        if self.whole and context > chunk:
            what = f"attention of this artifact reads a prompt in one step, of at most {chunk} tokens"
            raise UsageError(f"{what}; windows have {context}", where=str(path), hint=f"use at most {chunk}")
        self.size = chunk if self.whole or self.align > 1 else BLOCK
        self.session = self.model.session(context)

    def rows(self, ids: Sequence[int]) -> Iterator[Logits]:
        self.session.reset()
        for start, end in cuts(len(ids), self.size, self.align):
            yield self.session.forward(ids[start:end])


class CheckpointScorer:
    """A checkpoint in f32, by transformers, with its own cache between blocks.

    Raises:
        UsageError: the folder holds no checkpoint.
    """

    def __init__(self, path: Path, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        if not (path / "config.json").is_file():
            raise UsageError(f"{path} is not a checkpoint directory", hint="it must hold config.json")
        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True).eval()

    def rows(self, ids: Sequence[int]) -> Iterator[Logits]:
        cache: object = None
        for start, end in cuts(len(ids), BLOCK, 1):
            with self._torch.inference_mode():
                part = self._torch.tensor([list(ids[start:end])])
                out = self._model(part, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            yield out.logits[0].numpy()


def reference_scorer(path: Path, ours: ArtifactScorer, context: int, threads: int) -> Scorer:
    """The model to compare with: a checkpoint directory, or another artifact.

    Raises:
        UsageError: it has another vocabulary, or cannot hold the windows.
    """
    if not path.is_file():
        return CheckpointScorer(path, threads)
    other = ArtifactScorer(path, context, threads)
    if other.model.vocab_size != ours.model.vocab_size:
        sizes = f"{other.model.vocab_size} tokens, not {ours.model.vocab_size}"
        raise UsageError(f"{path} has a vocabulary of {sizes}", hint="compare artifacts of one checkpoint")
    return other
