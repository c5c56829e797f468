"""Paged attention against an f64 softmax over ragged batches, and bit equality over chunks, batches and threads.

Every storage of the cache is compared with the f64 softmax over the numbers that its pages stand for, so the bound is
the same for all: what rounding costs is not in it.
"""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.backends.tvm.kernels.attention import AttentionSpec, attention
from fretsaw.backends.tvm.kernels.isa import V3
from tests.backends.kernels.kernel_run import Array, Built, threads
from tests.backends.kernels.paged import LAYER, make, rows_of

SPECS = [
    AttentionSpec(9, 3, 64, V3),
    AttentionSpec(4, 4, 24, V3, value_dim=16, page=32, segment=2, window=37, soft_cap=5.0),
    AttentionSpec(8, 1, 16, V3, page=16, segment=3, sinks=True),
    AttentionSpec(14, 2, 80, V3, page=32, segment=2, lse=True),
    AttentionSpec(4, 2, 12, V3, page=16, causal=False, segment=2),
    AttentionSpec(9, 3, 64, V3, kv="f16"),
    AttentionSpec(4, 4, 24, V3, value_dim=16, page=32, segment=2, window=37, soft_cap=5.0, kv="f16"),
    AttentionSpec(8, 1, 16, V3, page=16, segment=3, sinks=True, kv="f16", lse=True),
    AttentionSpec(9, 3, 64, V3, kv="int8"),
    AttentionSpec(4, 4, 24, V3, value_dim=16, page=32, segment=2, window=37, soft_cap=5.0, kv="int8"),
    AttentionSpec(8, 1, 16, V3, page=16, segment=3, sinks=True, kv="int8"),
    AttentionSpec(14, 2, 80, V3, page=32, segment=2, kv="int8", lse=True),
]


def name_of(spec: AttentionSpec) -> str:
    marks = {
        "window-cap": spec.window,
        "sinks": spec.sinks,
        "wide-group": spec.group == 7,
        "both-ways": not spec.causal,
    }
    return "-".join([spec.kv, next((name for name, is_so in marks.items() if is_so), "plain"), *["lse"] * spec.lse])


def reference(spec: AttentionSpec, args: list[Array], sinks: Array | None) -> tuple[Array, Array]:
    """Outputs f64 [T, H * Ev] and logarithms of the sums of exponentials [T, H]."""
    q, k_pages, v_pages, table, lens, cu = args
    out, lse = np.zeros((len(q), spec.heads, spec.values)), np.zeros((len(q), spec.heads))
    for b in range(len(cu) - 1):
        n = int(cu[b + 1] - cu[b])
        for h in range(spec.heads * (n > 0)):
            kv = h // spec.group
            start = int(lens[LAYER, b, kv])
            total = start + n
            pages = table[LAYER, b, kv, : -(-total // spec.page)]
            k = rows_of(spec, k_pages[pages], spec.head_dim, transpose=True)[:total]
            v = rows_of(spec, v_pages[pages], spec.values, transpose=False)[:total]
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
            total_weight = p.sum(1, keepdims=True) + rest
            out[cu[b] : cu[b + 1], h] = p / total_weight @ v
            lse[cu[b] : cu[b + 1], h] = (top + np.log(total_weight))[:, 0]
    return out.reshape(len(q), spec.heads * spec.values), lse


def run(spec: AttentionSpec, kernel: Built, args: list[Array], sinks: Array | None = None) -> tuple[Array, Array]:
    """Outputs and logarithms (zeros where the kernel gives none) of one call."""
    out, lse = np.zeros((len(args[0]), spec.heads * spec.values), np.float32), np.zeros((len(args[0]), spec.heads))
    given = [*args, *([] if sinks is None else [sinks]), out, *([lse.astype(np.float32)] if spec.lse else [])]
    made = kernel(*given, scalars=(LAYER,))
    return (made[-2], made[-1]) if spec.lse else (made[-1], lse)


@pytest.mark.parametrize("spec", SPECS, ids=map(name_of, SPECS))
def test_reference_and_invariance(spec: AttentionSpec) -> None:
    kernel, kv = Built(attention(spec)), spec.kv_heads
    sinks = np.random.default_rng(9).standard_normal(spec.heads).astype(np.float32) if spec.sinks else None
    mixed = make(spec, [[0] * kv, [17 + 7 * i for i in range(kv)], [130] * kv, [5] * kv, [600] * kv], [70, 13, 1, 0, 1])
    with threads(1):
        alone, lse = run(spec, kernel, mixed, sinks)
    want, want_lse = reference(spec, mixed, sinks)
    assert np.abs(alone - want).max() < 4e-6
    assert not spec.lse or np.abs(lse - want_lse).max() < 4e-6
    for got, same in zip(run(spec, kernel, mixed, sinks), (alone, lse), strict=True):
        assert np.array_equal(got, same)
    assert run(spec, kernel, [mixed[0][:0], *mixed[1:5], np.zeros(6, np.int32)], sinks)[0].shape[0] == 0
    if not spec.causal:
        return
    length = 300
    q, k, v, table, lens, cu = make(spec, [[0] * kv], [length])
    whole = run(spec, kernel, [q, k, v, table, lens, cu], sinks)
    for cuts in ([0, 1, 2, 3, 70, 71, 200, length], list(range(250, length + 1))):
        for a, b in zip(cuts[:-1], cuts[1:], strict=True):
            lens[LAYER] = a
            part = run(spec, kernel, [q[a:b], k, v, table, lens, np.array([0, b - a], np.int32)], sinks)
            assert all(np.array_equal(p, w[a:b]) for p, w in zip(part, whole, strict=True)), (a, b)


def test_results_of_two_parts_of_the_cache_merge_by_their_logarithms() -> None:
    """exp(lse_i - lse) weighs the parts: attention over pages in two halves is attention over all of them."""
    spec = AttentionSpec(4, 2, 16, V3, page=16, segment=2, causal=False, lse=True)
    kernel = Built(attention(spec))
    q, k, v, table, lens, cu = make(spec, [[95] * 2], [1])
    whole, lse = run(spec, kernel, [q, k, v, table, lens, cu])
    first, second = lens.copy(), lens.copy()
    first[LAYER], second[LAYER] = 63, 31  # with the query's own slot: 64 and 32 slots
    a, lse_a = run(spec, kernel, [q, k, v, table, first, cu])
    b, lse_b = run(spec, kernel, [q, k, v, np.ascontiguousarray(table[..., 4:]), second, cu])
    share = (np.repeat(np.exp(x - lse), spec.values, 1) for x in (lse_a, lse_b))
    assert np.abs(next(share) * a + next(share) * b - whole).max() < 1e-6
    assert np.abs(np.logaddexp(lse_a, lse_b) - lse).max() < 2e-6
