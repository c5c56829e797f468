"""Reference KV cache for the interpreter: plain arrays, with a length for every (layer, sequence, head).

Sparse attention cuts keys and queries into blocks of :data:`BLOCK` positions, counted from the start of a sequence.
Arrays over the query blocks of a step have ``T // BLOCK + 2 * B`` rows, those of sequence b from
``cu[b] // BLOCK + 2 * b`` on: room for every block that it touches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fretsaw.ir.cache_policy import CachePolicy
from fretsaw.ir.kv_rows import Rows
from fretsaw.ir.planes import Plane

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
    """Keys and values by layer, sequence and head, and the segments of the step being run.

    Every (layer, sequence, head) has its own slots, with a position beside each; they may be fewer than the tokens
    that the sequence has seen, which :attr:`seen` counts and from which positions continue.

    Args:
        layers: Number of attention layers.
        sequences: Number of sequences it can hold.
        planes: Arrays of every page beside keys and values.
        page: Slots of a page.
    """

    def __init__(self, layers: int, sequences: int = 1, planes: Sequence[Plane] = (), page: int = BLOCK) -> None:
        self._rows = [[Rows(planes, page) for _ in range(sequences)] for _ in range(layers)]
        self._step: list[tuple[slice, int]] = []
        self._before = [0] * sequences
        self._counts: list[int] = []
        self.policies: dict[int, CachePolicy] = {}  # by layer; rows of the others hold everything

    def begin_step(self, counts: Sequence[int]) -> None:
        """Say how many tokens of each sequence the next step holds, in order. Evicts what the last step left over."""
        self._end_step()
        self._evict()
        self._counts = list(counts)
        ends = np.cumsum([0, *counts])
        self._step = [(slice(int(a), int(b)), i) for i, (a, b) in enumerate(zip(ends, ends[1:], strict=False))]

    def _end_step(self) -> None:
        for i, count in enumerate(self._counts):
            self._before[i] += count
        self._counts, self._step = [], []

    def _evict(self) -> None:
        for layer, policy in self.policies.items():
            for seen, rows in zip(self._before, self._rows[layer], strict=True):
                for head, held in enumerate(rows.lens):
                    stays = np.flatnonzero(policy.holds(rows.row(head)[2], seen))
                    if len(stays) < held:
                        rows.retain(head, stays)

    @property
    def seen(self) -> tuple[int, ...]:
        """Tokens that each sequence had seen before this step."""
        return tuple(self._before)

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
        for rows, seq in self.segments():
            self._rows[layer][seq].append(k[rows], v[rows], self._before[seq])

    def pieces(self, layer: int, seq: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """This step's tokens of a sequence, cut where the policy evicts: places in the segment, and the keys [S, K, E]
        and values [S, K, Ev] that they read, their own last."""
        k, v, positions = self._rows[layer][seq].read()
        start, count = self._before[seq], self._counts[seq]
        policy = self.policies.get(layer)
        if policy is None:
            yield slice(0, count), k, v
            return
        done = 0
        while done < count:
            end = min(policy.step_end(start + done) - start, count)
            own = (positions >= start + done) & (positions < start + end)
            held = policy.holds(positions, start + done) | own
            yield slice(done, end), k[held], v[held]
            done = end

    def keep(self, tokens: int) -> None:
        """Forget all but the first ``tokens`` tokens of every sequence; no step is under way then."""
        self._end_step()
        self._before = [min(n, tokens) for n in self._before]
        for layer in self._rows:
            for rows in layer:
                rows.keep(tokens)

    def retain(self, layer: int, seq: int, head: int, slots: Sequence[int]) -> None:
        """Compact a row to ``slots``, in rising order, between two steps (:meth:`Rows.retain`)."""
        self._rows[layer][seq].retain(head, np.asarray(slots, np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(rows.nbytes for layer in self._rows for rows in layer)

    def lens(self, layer: int, seq: int) -> list[int]:
        """Slots that each head holds; empty before the first token."""
        return self._rows[layer][seq].lens

    def read(self, layer: int, seq: int) -> tuple[np.ndarray, np.ndarray]:
        """All keys [S, K, E] and values [S, K, Ev] of one sequence, oldest first; its heads hold the same tokens."""
        k, v, _ = self._rows[layer][seq].read()
        return k, v

    def row(self, layer: int, seq: int, head: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys [S, E], values [S, Ev] and positions [S] of one head."""
        return self._rows[layer][seq].row(head)

    def plane(self, name: str, layer: int, seq: int, head: int) -> np.ndarray:
        """A plane of every page of a row, [pages, *shape]; may be written."""
        return self._rows[layer][seq].plane(name, head)
