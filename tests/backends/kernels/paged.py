"""Random contents of a paged cache, and what its pages stand for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from fretsaw.backends.program.kv_storage import read_rows, store_rows
from fretsaw.backends.tvm.kernels.attention import AttentionSpec
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


def masked_attention(
    spec: AttentionSpec, args: list[Array], seen: Callable[[int, int, Array, Array], Array], sinks: Array | None = None,
    moved: Callable[[Array, Array, bool], Array] | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Outputs f64 [T, H * Ev] by torch's SDPA over a mask, and logarithms of the sums [T, H].

    Args:
        seen: (sequence, head, positions [n, 1], keys [1, S]) -> bool [n, S].
        moved: (rows [n, E], their positions [n], they are keys) -> rows that are compared instead.
    """
    q, k_pages, v_pages, table, lens, cu = args
    out, lse = np.zeros((len(q), spec.heads, spec.values)), np.zeros((len(q), spec.heads))
    for b in range(len(cu) - 1):
        rows = slice(int(cu[b]), int(cu[b + 1]))
        count, before = rows.stop - rows.start, int(lens[LAYER, b, 0])
        positions, keys = before + np.arange(count)[:, None], np.arange(before + count)[None]
        for h in range(spec.heads * (count > 0)):
            pages = table[LAYER, b, h * spec.kv_heads // spec.heads, : -(-(before + count) // spec.page)]
            k = rows_of(spec, k_pages[pages], spec.head_dim, transpose=True)[: before + count]
            v = rows_of(spec, v_pages[pages], spec.values, transpose=False)[: before + count]
            x = q[rows, h].astype(np.float64)
            if moved is not None:
                x, k = moved(x, positions[:, 0], False), moved(k, keys[0], True)
            logits = x @ k.T * spec.factor
            if spec.soft_cap:
                logits = spec.soft_cap * np.tanh(logits / spec.soft_cap)
            bias = np.where(seen(b, h, positions, keys), logits, -np.inf)
            if sinks is not None:  # a key of zeros that everybody sees, with the sink as its bias
                bias, v = np.pad(bias, ((0, 0), (1, 0)), constant_values=sinks[h]), np.pad(v, ((1, 0), (0, 0)))
            zero = [torch.zeros(n, 1, dtype=torch.float64) for n in (len(bias), len(v))]
            mixed = scaled_dot_product_attention(zero[0], zero[1], torch.tensor(v), torch.tensor(bias))
            out[rows, h] = np.where(np.isneginf(bias).all(axis=1, keepdims=True), 0, mixed.numpy())
            lse[rows, h] = torch.logsumexp(torch.tensor(bias), 1).numpy()
    return out.reshape(len(q), -1), lse
