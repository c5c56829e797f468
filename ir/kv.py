"""Reference KV cache for the interpreter: plain lists of arrays, one per (layer, sequence)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


class ReferenceKvCache:
    """Keys and values by layer and sequence, and the segments of the step being run.

    Args:
        layers: Number of attention layers.
        sequences: Number of sequences it can hold.
    """

    def __init__(self, layers: int, sequences: int = 1) -> None:
        self._k: list[list[list[np.ndarray]]] = [[[] for _ in range(sequences)] for _ in range(layers)]
        self._v: list[list[list[np.ndarray]]] = [[[] for _ in range(sequences)] for _ in range(layers)]
        self._step: list[tuple[slice, int]] = []

    def begin_step(self, counts: Sequence[int]) -> None:
        """Say how many tokens of each sequence the next step holds, in order."""
        ends = np.cumsum([0, *counts])
        self._step = [(slice(int(a), int(b)), i) for i, (a, b) in enumerate(zip(ends, ends[1:], strict=False))]

    def segments(self) -> Iterator[tuple[slice, int]]:
        """Rows of each sequence in this step, sequences without tokens left out."""
        return ((rows, seq) for rows, seq in self._step if rows.stop > rows.start)

    def append(self, layer: int, k: np.ndarray, v: np.ndarray) -> None:
        """Add k [T, K, E] and v [T, K, Ev] of this step."""
        for rows, seq in self.segments():
            self._k[layer][seq].append(k[rows])
            self._v[layer][seq].append(v[rows])

    def read(self, layer: int, seq: int) -> tuple[np.ndarray, np.ndarray]:
        """All keys [S, K, E] and values [S, K, Ev] of one sequence, oldest first."""
        return np.concatenate(self._k[layer][seq]), np.concatenate(self._v[layer][seq])
