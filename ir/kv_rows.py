"""The rows of one layer and one sequence in the reference cache: one for each key-value head.

Tokens are stored once for all heads; a row lists which of them it holds, so that heads may hold different ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fretsaw.ir.planes import Plane
from fretsaw.ir.types import FLOATS, ITEMSIZE, numpy_dtype

Array = np.ndarray
Slots = NDArray[np.int64]


class Rows:
    """Keys, values, positions and planes of a sequence in one layer.

    Args:
        planes: Beside keys and values.
        page: Slots of a page.
    """

    def __init__(self, planes: Sequence[Plane], page: int) -> None:
        self._planes, self._page = planes, page
        self._parts: list[tuple[Array, Array, Slots]] = []  # k [n, K, E], v [n, K, Ev], positions [n]
        self._held: list[Slots] = []  # by head: tokens by their number in the parts
        self._beside: list[dict[str, Array]] = []  # by head and plane: [pages, *shape]

    @property
    def lens(self) -> list[int]:
        """Slots held by each head; empty before the first token."""
        return [len(held) for held in self._held]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values in the slots held."""
        if not self._parts:
            return 0
        k, v, _ = self._parts[0]
        return sum(self.lens) * (k[0, 0].nbytes + v[0, 0].nbytes) if len(k) else 0

    def append(self, k: Array, v: Array, first: int) -> None:
        """Add k [n, K, E] and v [n, K, Ev] of the tokens from position ``first`` on to every row."""
        if not self._held:
            self._held = [np.zeros(0, np.int64) for _ in range(k.shape[1])]
            self._beside = [{p.name: _new(p, 0) for p in self._planes} for _ in range(k.shape[1])]
        stored = sum(len(p) for *_, p in self._parts)
        self._parts.append((k, v, np.arange(first, first + len(k))))
        fresh = np.arange(stored, stored + len(k))
        for head, held in enumerate(self._held):
            self._held[head] = np.concatenate([held, fresh])
            self._fit(head)

    def read(self) -> tuple[Array, Array, Slots]:
        """k [S, K, E], v [S, K, Ev] and positions [S], where all heads hold the same tokens."""
        k, v, positions = self._stored()
        held = self._held[0]
        assert all(np.array_equal(held, other) for other in self._held[1:]), "heads hold different tokens: read a row"
        return (k, v, positions) if len(held) == len(positions) else (k[held], v[held], positions[held])

    def row(self, head: int) -> tuple[Array, Array, Slots]:
        """k [S, E], v [S, Ev] and positions [S] of one head."""
        k, v, positions = self._stored()
        held = self._held[head]
        return k[held, head], v[held, head], positions[held]

    def plane(self, name: str, head: int) -> Array:
        """The plane's array of every page of a row, [pages, *shape]; may be written."""
        return self._beside[head][name]

    def retain(self, head: int, slots: Slots) -> None:
        """Compact a row to ``slots``, in rising order.

        A page that is kept whole, wherever it moves to, takes its planes along; any other is a new page, with their
        fill.
        """
        assert (np.diff(slots) > 0).all() and (not len(slots) or 0 <= slots[0] <= slots[-1] < len(self._held[head]))
        size, old = self._page, len(self._held[head])
        beside = self._beside[head]
        fresh = {p.name: _new(p, -(-len(slots) // size)) for p in self._planes}
        for page in range(-(-len(slots) // size)):
            mine = slots[page * size : (page + 1) * size]
            first = int(mine[0])
            whole = np.array_equal(mine, np.arange(first, min(first + size, old)))
            if first % size == 0 and whole:
                for name, array in fresh.items():
                    array[page] = beside[name][first // size]
        self._held[head], self._beside[head] = self._held[head][slots], fresh
        self._forget_unheld()

    def keep(self, tokens: int) -> None:
        """Forget tokens from position ``tokens`` on; the pages left stay as they are."""
        if not self._parts:
            return
        _, _, positions = self._stored()
        for head, held in enumerate(self._held):
            self._held[head] = held[positions[held] < tokens]
            self._fit(head)
        self._forget_unheld()

    def _stored(self) -> tuple[Array, Array, Slots]:
        """All parts as one."""
        if len(self._parts) > 1:
            k, v, positions = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
            self._parts = [(k, v, positions)]
        return self._parts[0]

    def _forget_unheld(self) -> None:
        """Drop tokens that no head holds."""
        k, v, positions = self._stored()
        used = np.unique(np.concatenate(self._held))
        if len(used) < len(positions):
            self._parts = [(k[used], v[used], positions[used])]
            self._held = [np.searchsorted(used, held) for held in self._held]

    def _fit(self, head: int) -> None:
        """As many pages in every plane as the row needs, new ones with the fill."""
        pages = -(-len(self._held[head]) // self._page)
        for p in self._planes:
            now = self._beside[head][p.name]
            more = _new(p, max(0, pages - len(now)))
            self._beside[head][p.name] = np.concatenate([now[:pages], more])


def _new(plane: Plane, pages: int) -> Array:
    """Pages taken anew; without a fill they are such that reading them shows."""
    poison = np.nan if plane.dtype in FLOATS else -(1 << (8 * ITEMSIZE[plane.dtype] - 1))
    return np.full((pages, *plane.shape), poison if plane.fill is None else plane.fill, numpy_dtype(plane.dtype))
