"""Reference KV cache for the interpreter: plain lists of arrays, one per (layer, sequence).

Sparse attention cuts keys and queries into blocks of :data:`BLOCK` positions, counted from the start of a sequence.
Arrays over the query blocks of a step have ``T // BLOCK + 2 * B`` rows, those of sequence b from
``cu[b] // BLOCK + 2 * b`` on: room for every block that it touches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fretsaw.ir.formats import FORMATS

BLOCK = 64  # positions in a block of keys or queries, which is a page of the cache


def block_dims(counts: Sequence[int], before: Sequence[int]) -> dict[str, int]:
    """Sizes of arrays over blocks: B sequences, QB rows for query blocks, KB blocks of the longest sequence.

    Args:
        counts: Tokens of each sequence in the step.
        before: Tokens that each had in the cache before it.
    """
    longest = max((n + b for n, b in zip(counts, before, strict=True) if n), default=0)
    return {"B": len(counts), "QB": sum(counts) // BLOCK + 2 * len(counts), "KB": -(-longest // BLOCK)}


@dataclass(frozen=True)
class QueryBlock:
    """The part of one query block that a step holds.

    Args:
        row: Its row in arrays over query blocks.
        sequence: Index of its sequence in the step.
        block: Its number in the sequence; also that of the last key block that it sees.
        tokens: Its rows among the step's tokens.
        first: Position of the first of them in the sequence.
        end: Tokens of the sequence, this step's included.
        single: The step holds one token of the sequence: it decodes.
    """

    row: int
    sequence: int
    block: int
    tokens: slice
    first: int
    end: int
    single: bool

    @property
    def positions(self) -> np.ndarray:
        """Of its tokens in the sequence."""
        return np.arange(self.first, self.first + self.tokens.stop - self.tokens.start)


class ReferenceKvCache:
    """Keys and values by layer and sequence, and the segments of the step being run.

    Args:
        layers: Number of attention layers.
        sequences: Number of sequences it can hold.
        format: How numbers are kept: what is read is what the format holds of what was appended.
    """

    def __init__(self, layers: int, sequences: int = 1, format: str = "f32") -> None:
        self.format = format
        self._k: list[list[list[np.ndarray]]] = [[[] for _ in range(sequences)] for _ in range(layers)]
        self._v: list[list[list[np.ndarray]]] = [[[] for _ in range(sequences)] for _ in range(layers)]
        self._step: list[tuple[slice, int]] = []
        self._before = [0] * sequences
        self._counts: list[int] = []

    def begin_step(self, counts: Sequence[int]) -> None:
        """Say how many tokens of each sequence the next step holds, in order."""
        for i, count in enumerate(self._counts):
            self._before[i] += count
        self._counts = list(counts)
        ends = np.cumsum([0, *counts])
        self._step = [(slice(int(a), int(b)), i) for i, (a, b) in enumerate(zip(ends, ends[1:], strict=False))]

    def segments(self) -> Iterator[tuple[slice, int]]:
        """Rows of each sequence in this step, sequences without tokens left out."""
        return ((rows, seq) for rows, seq in self._step if rows.stop > rows.start)

    @property
    def dims(self) -> dict[str, int]:
        """Symbols that arrays over blocks of this step are sized by (:func:`block_dims`)."""
        return block_dims(self._counts, self._before[: len(self._counts)])

    def query_blocks(self) -> Iterator[QueryBlock]:
        """The query blocks of this step, in order of their rows."""
        for rows, seq in self.segments():
            start, end = self._before[seq], self._before[seq] + rows.stop - rows.start
            first = start // BLOCK
            for block in range(first, -(-end // BLOCK)):
                low, high = max(block * BLOCK, start), min((block + 1) * BLOCK, end)
                row = rows.start // BLOCK + 2 * seq + block - first
                tokens = slice(rows.start + low - start, rows.start + high - start)
                yield QueryBlock(row, seq, block, tokens, low, end, rows.stop - rows.start == 1)

    def append(self, layer: int, k: np.ndarray, v: np.ndarray) -> None:
        """Add k [T, K, E] and v [T, K, Ev] of this step."""
        if self.format != "f32":  # which keeps f64 too: checks compare graphs in f64
            k, v = (FORMATS[self.format].rounded(x) for x in (k, v))
        for rows, seq in self.segments():
            self._k[layer][seq].append(k[rows])
            self._v[layer][seq].append(v[rows])

    def keep(self, tokens: int) -> None:
        """Forget all but the first ``tokens`` tokens of every sequence; no step is under way then."""
        for layer in (*self._k, *self._v):
            for parts in layer:
                parts[:] = [np.concatenate(parts)[:tokens]] if parts else []
        self.begin_step([])
        self._before = [min(n, tokens) for n in self._before]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(a.nbytes for layer in (*self._k, *self._v) for parts in layer for a in parts)

    def read(self, layer: int, seq: int) -> tuple[np.ndarray, np.ndarray]:
        """All keys [S, K, E] and values [S, K, Ev] of one sequence, oldest first."""
        return np.concatenate(self._k[layer][seq]), np.concatenate(self._v[layer][seq])
