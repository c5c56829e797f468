"""Random contents of a paged cache, and what its pages stand for."""

from __future__ import annotations

import numpy as np

from fretsaw.backends.tvm.kernels.attention import AttentionSpec
from fretsaw.backends.tvm.kv_storage import read_rows, store_rows
from tests.backends.kernels.kernel_run import Array

LAYER = 1


def make(spec: AttentionSpec, lens0: list[list[int]], counts: list[int]) -> list[Array]:
    """Random queries and pages; unwritten slots hold NaN (int8: as their scale), so reading one shows."""
    rng = np.random.default_rng(len(counts))
    b, p, kv = len(counts), spec.page, spec.kv_heads
    most = max(-(-(max(n) + c) // p) for n, c in zip(lens0, counts, strict=True)) + 1
    lens = np.zeros((2, b, kv), np.int32)
    lens[LAYER] = lens0
    table = rng.permutation(2 * b * kv * most).reshape(2, b, kv, most).astype(np.int32)
    k = rng.standard_normal((table.size, spec.head_dim, p)).astype(np.float32)
    v = rng.standard_normal((table.size, p, spec.values)).astype(np.float32)
    for i in range(b):
        for h in range(kv):
            for j in range(most):
                used = max(0, min(p, lens0[i][h] + counts[i] - j * p))
                k[table[LAYER, i, h, j], :, used:] = np.nan
                v[table[LAYER, i, h, j], used:] = np.nan
    k = np.stack([store_rows(x.T, spec.kv, transpose=True) for x in k])
    v = np.stack([store_rows(x, spec.kv, transpose=False) for x in v])
    cu = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    q = rng.standard_normal((cu[-1], spec.heads, spec.head_dim)).astype(np.float32)
    return [q, k, v, table, lens, cu]


def rows_of(spec: AttentionSpec, pages: Array, size: int, *, transpose: bool) -> Array:
    """What some pages stand for, one after another: f64 [n * P, size]."""
    parts = [read_rows(page, size, spec.page, spec.kv, transpose=transpose) for page in pages]
    return np.concatenate(parts).astype(np.float64)
