"""A step of several sequences, both as the reference cache and as the paged arrays that kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fretsaw.backends.program.kv_storage import KvType, read_rows, store_rows
from fretsaw.ir import get_op
from fretsaw.ir.kv import BLOCK, ReferenceKvCache
from tests.backends.kernels.kernel_run import Array

LAYER = 1
SPARE = 3  # columns of the page table beyond the longest sequence
# tokens in the step and before it: whole and cut blocks, no tokens, a decoding sequence, chunks that begin anywhere
MIXED = ([200, 1, 0, 70, 64, 5, 130], [0, 130, 7, 37, 128, 63, 320])


@dataclass(frozen=True)
class Case:
    """Contents of one step.

    Args:
        cache: What references read; keys are what the pages stand for.
        q: [T, H, E].
        paged: ``k_pages``, ``v_pages``, ``table``, ``lens``, ``cu``; slots without a key hold NaN.
    """

    cache: ReferenceKvCache
    q: NDArray[np.float32]
    paged: list[Array]
    counts: list[int]
    before: list[int]

    @property
    def rows(self) -> int:
        """QB."""
        return self.cache.dims["QB"]

    @property
    def width(self) -> int:
        """KB of the compiled program: the width of the page table."""
        return int(self.paged[2].shape[3])

    @property
    def step(self) -> list[Array]:
        """``lens`` and ``cu``."""
        return [self.paged[3], self.paged[4]]

    def reference(self, op: str, *operands: Array, **attrs: object) -> list[Array]:
        """Results of an op of the IR on this step; operands and results as wide as the page table."""
        names = get_op(op).attrs
        given = {n: attrs.get(n, spec.default) for n, spec in names.items()}
        assert set(attrs) <= set(names)
        narrow = [self.narrow(a) for a in operands]
        cache = [self.cache] if "kv" in get_op(op).slots else []
        return [self.wide(a) for a in get_op(op).reference([*cache, *narrow], given)]

    def narrow(self, a: Array) -> Array:
        """Only the columns of blocks (or of slots) that the longest sequence has."""
        kb = self.cache.dims["KB"]
        for axis, size in enumerate(a.shape):
            if axis >= 2 and size in (self.width, self.width * BLOCK):
                return np.take(a, np.arange(kb * (size // self.width)), axis)
        return a

    def wide(self, a: Array) -> Array:
        """Columns of blocks that nobody has added: empty ones, -inf among scores."""
        kb = self.cache.dims["KB"]
        for axis, size in enumerate(a.shape):
            if axis >= 2 and size in (kb, kb * BLOCK):
                room = [(0, 0)] * a.ndim
                room[axis] = (0, (self.width - kb) * (size // kb))
                scores = a.dtype == np.float32 and a.shape[0] == self.rows and bool(np.isneginf(a).any())
                return np.pad(a, room, constant_values=-np.inf if scores else 0)
        return a


def make(
    counts: Sequence[int], before: Sequence[int], heads: int = 4, kv_heads: int = 2, size: int = 16,
    kv: KvType = "f32", seed: int = 0, keys: Array | None = None,
) -> Case:  # fmt: skip
    """Random queries and keys (or ``keys`` f32[S, K, E] for every sequence)."""
    rng = np.random.default_rng(seed)
    b, width = len(counts), max(-(-(n + x) // BLOCK) for n, x in zip(counts, before, strict=True)) + SPARE
    table = rng.permutation(2 * b * kv_heads * width).reshape(2, b, kv_heads, width).astype(np.int32)
    lens = np.broadcast_to(np.array(before, np.int32)[None, :, None], (2, b, kv_heads))
    cu = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    pages = np.full((table.size, size, BLOCK), np.nan, np.float32)
    for i, (n, x) in enumerate(zip(counts, before, strict=True)):
        mine = rng.standard_normal((n + x, kv_heads, size)).astype(np.float32) if keys is None else keys[: n + x]
        for h in range(kv_heads):
            for j in range(-(-(n + x) // BLOCK)):
                part = mine[j * BLOCK : (j + 1) * BLOCK, h].T
                pages[table[LAYER, i, h, j], :, : part.shape[1]] = part
    stored = np.stack([store_rows(x.T, kv, transpose=True) for x in pages])
    cache = ReferenceKvCache(LAYER + 1, b)
    cache.begin_step(list(before))
    cache.append(LAYER, *[_read(stored, table, before, np.zeros(b, int), size, kv)] * 2)
    cache.begin_step(list(counts))
    cache.append(LAYER, *[_read(stored, table, counts, np.array(before), size, kv)] * 2)
    q = rng.standard_normal((int(cu[-1]), heads, size)).astype(np.float32)
    paged = [stored, np.zeros((1, *stored.shape[1:]), stored.dtype), table, np.ascontiguousarray(lens), cu]
    return Case(cache, q, paged, list(counts), list(before))


def _read(pages: Array, table: Array, counts: Sequence[int], first: Array, size: int, kv: KvType) -> Array:
    """Keys of all sequences from slot ``first`` on, one after another: [sum(counts), K, E]."""
    parts = []
    for i, n in enumerate(counts):
        heads = [
            np.concatenate([read_rows(pages[p], size, BLOCK, kv, transpose=True) for p in table[LAYER, i, h]])
            for h in range(table.shape[2])
        ]
        parts.append(np.stack(heads, 1)[first[i] : first[i] + n].astype(np.float32))
    return np.concatenate(parts)
