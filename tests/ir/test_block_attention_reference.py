"""The reference of block attention against dense attention under the expanded mask, in f64 and f32."""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.ir import ReferenceKvCache
from fretsaw.ir.op import get_op
from fretsaw.ir.ops.attention import attend

HEADS, KEY_HEADS, SIZE = 4, 2, 8


def _cache(counts: list[list[int]], rng: np.random.Generator, dtype: type) -> ReferenceKvCache:
    kv = ReferenceKvCache(1, len(counts[0]))
    for step in counts:
        kv.begin_step(step)
        shape = (sum(step), KEY_HEADS, SIZE)
        kv.append(0, rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype))
    return kv


def _lists(kv: ReferenceKvCache, groups: int, rng: np.random.Generator, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Random ascending lists with the diagonal block, and rubbish behind their ends."""
    dims = kv.dims
    idx = np.full((dims["QB"], groups, dims["KB"]), 99, np.int32)
    cnt = np.zeros((dims["QB"], groups), np.int32)
    for block in kv.query_blocks():
        for g in range(groups):
            chosen = [j for j in range(block.block + 1) if j == block.block or rng.random() < share]
            idx[block.row, g, : len(chosen)], cnt[block.row, g] = chosen, len(chosen)
    return idx, cnt


def _oracle(
    kv: ReferenceKvCache, q: np.ndarray, idx: np.ndarray, cnt: np.ndarray, spans: list[tuple[int, int]],
    sinks: np.ndarray | None,
) -> np.ndarray:  # fmt: skip
    """Every pair of query and key looked at on its own, in f64."""
    out = np.zeros(q.shape, np.float64)
    for block in kv.query_blocks():
        k, v = (a.astype(np.float64) for a in kv.read(0, block.sequence))
        for at, pos in zip(range(block.tokens.start, block.tokens.stop), block.positions, strict=True):
            for h in range(HEADS):
                g, mine = h * idx.shape[1] // HEADS, h * KEY_HEADS // HEADS
                listed = set(idx[block.row, g, : cnt[block.row, g]].tolist())
                sink, window = spans[h]
                keys = [
                    c for c in range(pos + 1)
                    if block.single or (c // 64 in listed and (not window or pos - c < window or c < sink))
                ]  # fmt: skip
                weights = np.exp(0.5 * (k[keys, mine] @ q[at, h].astype(np.float64)))
                rest = 0.0 if sinks is None else np.exp(float(sinks[h]))
                out[at, h] = weights @ v[keys, mine] / (weights.sum() + rest)
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("spans", [[(0, 0)] * 4, [(0, 0), (3, 70), (64, 1), (0, 200)]])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_lists_are_a_mask(dtype: type, groups: int, spans: list[tuple[int, int]], with_sinks: bool) -> None:
    rng = np.random.default_rng(3)
    kv = _cache([[70, 0, 65], [90, 1, 64]], rng, dtype)
    q: np.ndarray = rng.standard_normal((155, HEADS, SIZE)).astype(dtype)
    idx, cnt = _lists(kv, groups, rng, 0.4)
    sinks: np.ndarray | None = rng.standard_normal(HEADS).astype(dtype) if with_sinks else None
    attrs = {
        "layer": 0, "scale": 0.5, "value_size": SIZE, "sink": tuple(s for s, _ in spans),
        "window": tuple(w for _, w in spans), "lse": True,
    }  # fmt: skip
    operands = (kv, q, idx, cnt) if sinks is None else (kv, q, idx, cnt, sinks)
    out, lse = get_op("block_attention").reference(operands, attrs)
    want = _oracle(kv, q, idx, cnt, spans, sinks)
    # A row sums at most 160 terms: 160 roundings of a mean of values below 4.
    assert np.abs(out - want).max() < 160 * 4 * np.finfo(dtype).eps
    assert out.dtype == dtype and np.isfinite(lse).all()


def test_full_lists_are_dense_attention() -> None:
    rng = np.random.default_rng(5)
    kv = _cache([[600]], rng, np.float64)
    q = rng.standard_normal((600, HEADS, SIZE))
    idx, cnt = _lists(kv, 2, rng, 1.1)
    attrs = {"layer": 0, "scale": 0.5, "value_size": SIZE}
    (out,) = get_op("block_attention").reference((kv, q, idx, cnt), attrs)
    k, v = kv.read(0, 0)
    assert np.abs(out - attend(q, k, v, None, np.arange(600), attrs)).max() < 600 * 4 * np.finfo(np.float64).eps


def test_a_row_without_keys_is_zero() -> None:
    rng = np.random.default_rng(5)
    kv = _cache([[70]], rng, np.float32)
    idx, cnt = np.zeros((3, 2, 2), np.int32), np.zeros((3, 2), np.int32)
    q = rng.standard_normal((70, HEADS, SIZE)).astype(np.float32)
    out, lse = get_op("block_attention").reference(
        (kv, q, idx, cnt), {"layer": 0, "scale": 0.5, "value_size": SIZE, "lse": True}
    )
    assert not out.any() and np.isneginf(lse).all()


def test_attention_in_bands_is_attention() -> None:
    """Long causal texts are worked on in bands; a window, a soft cap and sinks hold across them."""
    rng = np.random.default_rng(9)
    q, k = rng.standard_normal((600, HEADS, SIZE)), rng.standard_normal((700, KEY_HEADS, SIZE))
    v, sinks = rng.standard_normal(k.shape), rng.standard_normal(HEADS)
    attrs = {"scale": 0.5, "softcap": 3.0, "window": 300}
    got = attend(q, k, v, sinks, np.arange(100, 700), attrs)
    for row in (0, 255, 256, 257, 599):
        seen = slice(max(0, row + 101 - 300), row + 101)
        for h in range(HEADS):
            logits = 3.0 * np.tanh(0.5 * (k[seen, h // 2] @ q[row, h]) / 3.0)
            weights = np.exp(logits)
            want = weights @ v[seen, h // 2] / (weights.sum() + np.exp(sinks[h]))
            assert np.abs(got[row, h] - want).max() < 1e-12
