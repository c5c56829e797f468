"""Paged attention against an f64 softmax over ragged batches, and bit equality over chunks, batches and threads."""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.backends.tvm.kernels.attention import AttentionSpec, attention
from fretsaw.backends.tvm.kernels.isa import V3
from tests.backends.kernels.kernel_run import Array, Built, threads

LAYER = 1
SPECS = [
    AttentionSpec(9, 3, 64, V3),
    AttentionSpec(4, 4, 24, V3, value_dim=16, page=32, segment=2, window=37, soft_cap=5.0),
    AttentionSpec(8, 1, 16, V3, page=16, segment=3, sinks=True),
    AttentionSpec(14, 2, 80, V3, page=32, segment=2),
    AttentionSpec(4, 2, 12, V3, page=16, causal=False, segment=2),
]
IDS = ["plain", "window-cap", "sinks", "wide-group", "bidirectional"]


def make(spec: AttentionSpec, lens0: list[list[int]], counts: list[int]) -> list[Array]:
    """Random queries and pages; unwritten slots hold NaN, so reading one shows."""
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
    cu = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    q = rng.standard_normal((cu[-1], spec.heads, spec.head_dim)).astype(np.float32)
    return [q, k, v, table, lens, cu]


def reference(spec: AttentionSpec, args: list[Array], sinks: Array | None) -> Array:
    q, k_pages, v_pages, table, lens, cu = args
    out = np.zeros((len(q), spec.heads, spec.values))
    for b in range(len(cu) - 1):
        n = int(cu[b + 1] - cu[b])
        for h in range(spec.heads * (n > 0)):
            kv = h // spec.group
            start = int(lens[LAYER, b, kv])
            total = start + n
            pages = table[LAYER, b, kv, : -(-total // spec.page)]
            k = k_pages[pages].transpose(0, 2, 1).reshape(-1, spec.head_dim)[:total].astype(np.float64)
            v = v_pages[pages].reshape(-1, spec.values)[:total].astype(np.float64)
            s = q[cu[b] : cu[b + 1], h] @ k.T * spec.factor
            if spec.soft_cap:
                s = spec.soft_cap * np.tanh(s / spec.soft_cap)
            i, j = start + np.arange(n)[:, None], np.arange(total)[None]
            seen = (j <= i) if spec.causal else np.ones((n, total), bool)
            if spec.window:
                seen &= j > i - spec.window
            s = np.where(seen, s, -np.inf)
            top = s.max(1, keepdims=True) if sinks is None else np.maximum(s.max(1, keepdims=True), sinks[h])
            p = np.exp(s - top)
            rest = 0 if sinks is None else np.exp(sinks[h] - top)
            out[cu[b] : cu[b + 1], h] = p / (p.sum(1, keepdims=True) + rest) @ v
    return out.reshape(len(q), spec.heads * spec.values)


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_reference_and_invariance(spec: AttentionSpec) -> None:
    kernel, kv = Built(attention(spec)), spec.kv_heads
    sinks = np.random.default_rng(9).standard_normal(spec.heads).astype(np.float32) if spec.sinks else None

    def run(args: list[Array]) -> Array:
        out = np.zeros((len(args[0]), spec.heads * spec.values), np.float32)
        return kernel(*args, *([] if sinks is None else [sinks]), out, scalars=(LAYER,))[-1]

    mixed = make(spec, [[0] * kv, [17 + 7 * i for i in range(kv)], [130] * kv, [5] * kv, [600] * kv], [70, 13, 1, 0, 1])
    with threads(1):
        alone = run(mixed)
    assert np.abs(alone - reference(spec, mixed, sinks)).max() < 4e-6
    assert np.array_equal(run(mixed), alone)
    assert run([mixed[0][:0], *mixed[1:5], np.zeros(6, np.int32)]).shape[0] == 0
    if not spec.causal:
        return
    length = 300
    q, k, v, table, lens, cu = make(spec, [[0] * kv], [length])
    whole = run([q, k, v, table, lens, cu])
    for cuts in ([0, 1, 2, 3, 70, 71, 200, length], list(range(250, length + 1))):
        for a, b in zip(cuts[:-1], cuts[1:], strict=True):
            lens[LAYER] = a
            part = run([q[a:b], k, v, table, lens, np.array([0, b - a], np.int32)])
            assert np.array_equal(part, whole[a:b]), (a, b)
