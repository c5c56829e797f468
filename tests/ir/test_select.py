"""References of selectors: against attention maps written out, and what every rule has to keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.ir import get_op
from fretsaw.ir.kv import BLOCK, ReferenceKvCache

Array = np.ndarray
HEADS, KV_HEADS, SIZE, SCALE = 4, 2, 8, 0.35
KEYS = {"layer": 0, "kv_heads": KV_HEADS, "scale": SCALE, "decode": False}
EPS = float(np.finfo(np.float32).eps)


def step(counts: list[int], seed: int = 0) -> tuple[ReferenceKvCache, Array, list[Array]]:
    """A cache after the first step of sequences, its queries [T, H, E], and the keys [S, K, E] of each."""
    rng = np.random.default_rng(seed)
    total = sum(counts)
    keys, q = rng.standard_normal((total, KV_HEADS, SIZE)), rng.standard_normal((total, HEADS, SIZE))
    return filled(counts, keys), q, np.split(keys, np.cumsum(counts)[:-1])


def filled(counts: list[int], keys: Array) -> ReferenceKvCache:
    kv = ReferenceKvCache(1, len(counts))
    kv.begin_step(counts)
    kv.append(0, keys, keys)
    return kv


def run(op: str, *operands: object, **attrs: object) -> list[Array]:
    given_ = {name: spec.default for name, spec in get_op(op).attrs.items()}
    return list(get_op(op).reference(list(operands), {**given_, **attrs}))


def attention_map(q: Array, k: Array) -> Array:
    """Causal softmax [S, S] of one head."""
    logits = np.where(np.tri(len(k), dtype=bool), q @ k.T * SCALE, -np.inf)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    out: Array = e / e.sum(axis=1, keepdims=True)
    return out


def by_block(a: Array) -> Array:
    """Sums of blocks of a matrix [S, S], the last ones as they are cut."""
    starts = np.arange(0, len(a), BLOCK)
    out: Array = np.add.reduceat(np.add.reduceat(a, starts, axis=0), starts, axis=1)
    return out


COUNTS = [200, 130, 64]


def each(counts: list[int], heads: int = HEADS) -> list[tuple[int, int, int, slice]]:
    """(sequence, head, first row over blocks, tokens) of every head of every sequence."""
    starts = np.cumsum([0, *counts])
    return [
        (b, h, int(starts[b]) // BLOCK + 2 * b, slice(int(starts[b]), int(starts[b + 1])))
        for b in range(len(counts)) for h in range(heads)
    ]  # fmt: skip


def test_antidiagonals_of_stride_one_are_the_attention_map() -> None:
    """S7."""
    kv, q, keys = step(COUNTS)
    (got,) = run("antidiagonal_scores", kv, q, **KEYS, stride=1)
    for b, h, row, tokens in each(COUNTS):
        want = by_block(attention_map(q[tokens, h], keys[b][:, h // 2]))
        n = len(want)
        seen = np.tri(n, dtype=bool)
        assert np.abs(got[row : row + n, h, :n][seen] - want[seen]).max() < 64 * EPS
        assert np.isneginf(got[row : row + n, h, :n][~seen]).all()


@pytest.mark.parametrize("stride", [4, 16])
def test_antidiagonals_by_reshapes(stride: int) -> None:
    """Of whole cells: rows reversed and keys put side by side make one product, as the method is published."""
    kv, q, keys = step([256])
    (got,) = run("antidiagonal_scores", kv, q, **KEYS, stride=stride, norm=2.0)
    for h in range(HEADS):
        cells = 256 // stride
        rows = q[:, h].reshape(cells, stride, SIZE)[:, ::-1].reshape(cells, -1)
        logits = rows @ keys[0][:, h // 2].reshape(cells, -1).T * SCALE / (stride * 2.0)
        logits = np.where(np.tri(cells, dtype=bool), logits, -np.inf)
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        mass = (e / e.sum(axis=1, keepdims=True)).reshape(4, cells // 4, 4, cells // 4).sum(axis=(1, 3))
        seen = np.tri(4, dtype=bool)
        assert np.abs(got[:4, h][seen] - mass[seen]).max() < 64 * EPS


def test_lines_are_sums_of_the_last_rows_of_the_map() -> None:
    kv, q, keys = step(COUNTS)
    columns, diagonals = run("line_scores", kv, q, **KEYS, rows=50)
    for b, h, _, tokens in each(COUNTS):
        a = attention_map(q[tokens, h], keys[b][:, h // 2])
        n, last = len(a), a[-50:]
        assert np.abs(columns[b, h, :n] - last.sum(axis=0)).max() < 64 * EPS
        want = [sum(last[r, n - 50 + r - d] for r in range(50) if n - 50 + r >= d) for d in range(n)]
        assert np.abs(diagonals[b, h, :n] - want).max() < 64 * EPS
        assert not columns[b, h, n:].any() and not diagonals[b, h, n:].any()


def test_blocks_of_lines_cover_the_lines() -> None:
    """Every pair on a chosen column or diagonal lies in a chosen block; nothing more is chosen than those touch."""
    kv, _, _ = step([330])
    rng = np.random.default_rng(0)
    columns, diagonals = (rng.random((1, 3, 6 * BLOCK)).astype(np.float32) for _ in range(2))
    forced = np.zeros((7, 3, 6), bool)
    (got,) = run("line_blocks", kv, columns, diagonals, forced, columns=3, diagonals=2)
    for h in range(3):
        best = [np.argsort(-x[0, h, :330], kind="stable")[:n] for x, n in ((columns, 3), (diagonals, 2))]
        pairs = np.zeros((384, 384), bool)  # as if the last block were whole
        pairs[:, best[0]] = True
        for d in best[1]:
            pairs |= np.eye(384, k=-int(d), dtype=bool)
        touched = by_block((pairs & np.tri(384, dtype=bool)).astype(float)) > 0
        columns_of = np.zeros((6, 6), bool)
        columns_of[:, best[0] // BLOCK] = True
        assert np.array_equal(got[:6, h], (touched | columns_of) & np.tri(6, dtype=bool))


def test_columns_as_tokens_are_the_best_that_no_block_holds() -> None:
    kv, _, _ = step([330])
    columns = np.random.default_rng(0).random((1, 3, 6 * BLOCK)).astype(np.float32)
    columns[0, 0, 200] = np.nan
    mask = np.random.default_rng(1).random((7, 3, 6)) < 0.3
    ids, cnt = run("line_tokens", kv, columns, mask, columns=(20, 0, 40), first_columns=4)
    assert ids.shape == (7, 3, 40) and not cnt[:, 1].any() and not cnt[6].any()
    for h, count in ((0, 20), (2, 40)):
        lead = np.where(np.arange(330) < 4, np.inf, np.nan_to_num(columns[0, h, :330], nan=-np.inf))
        best = set(np.argsort(-lead, kind="stable")[:count].tolist())
        for row in range(6):
            want = sorted(c for c in best if c < min(64 * row + 64, 330) and not mask[row, h, c // BLOCK])
            assert ids[row, h, : cnt[row, h]].tolist() == want
            assert not ids[row, h, cnt[row, h] :].any()


def test_shifted_keys_change_no_softmax() -> None:
    """S10: a tail that leaks into a mean or a sum would."""
    kv, q, keys = step(COUNTS)
    moved = filled(COUNTS, np.concatenate(keys) + np.linspace(-2, 3, SIZE))
    for op, attrs in (
        ("antidiagonal_scores", {"stride": 8}), ("compressed_scores", {}), ("line_scores", {"rows": 64}),
    ):  # fmt: skip
        for a, b in zip(run(op, kv, q, **KEYS, **attrs), run(op, moved, q, **KEYS, **attrs), strict=True):
            there = np.isfinite(a)
            assert np.abs(a[there] - b[there]).max() < 64 * EPS and np.array_equal(there, np.isfinite(b))
    softs = []
    for cache in (kv, moved):
        (qp,) = run("pool_queries", cache, q)
        (kp,) = run("pool_keys", cache, layer=0, kv_heads=KV_HEADS, size=SIZE)
        softs.append(run("softmax_blocks", *run("block_scores", cache, qp, kp, scale=SCALE))[0])
    assert np.abs(softs[0] - softs[1]).max() < 32 * EPS


def test_bounds_bound_and_windows_are_windows() -> None:
    """S6: a bound is at least every logit of the block; a block's score at least every window's mass."""
    kv, q, keys = step(COUNTS)
    lo, hi = (run("pool_keys", kv, layer=0, kv_heads=KV_HEADS, size=SIZE, kind=kind)[0] for kind in ("min", "max"))
    (bound,) = run("bound_scores", kv, q, lo, hi, scale=SCALE)
    (windows,) = run("compressed_scores", kv, q, **KEYS)
    for b, h, row, tokens in each(COUNTS):
        k = keys[b][:, h // 2]
        logits = np.where(np.tri(len(k), dtype=bool), q[tokens, h] @ k.T * SCALE, -np.inf)
        for i in range(-(-len(k) // BLOCK)):
            for j in range(i + 1):
                part = logits[i * BLOCK : (i + 1) * BLOCK, j * BLOCK : (j + 1) * BLOCK]
                assert bound[row + i, h, j] >= part.max() - 16 * EPS
        if h % 2:
            continue
        means = np.array([k[w : w + 32].mean(axis=0) for w in range(0, len(k) - 31, 16)])
        for t in range(31, len(k)):
            seen = means[: (t - 31) // 16 + 1]
            e = [np.exp(seen @ q[tokens][t, h + g] * SCALE) for g in range(2)]
            mass = sum(x / x.sum() for x in e)
            for w, m in enumerate(mass):
                for j in {w * 16 // BLOCK, (w * 16 + 31) // BLOCK} & set(range(t // BLOCK + 1)):
                    assert windows[row + t // BLOCK, h // 2, j] >= m - 16 * EPS


def test_a_needle_is_found() -> None:
    """S8: a key that answers all queries of a block stands out."""
    kv, q, keys = step([320])
    all_keys = keys[0].copy()
    q = np.abs(q) * 0.1 + 1
    all_keys[70] = 6.0
    kv = filled([320], all_keys)
    lo, hi = (run("pool_keys", kv, layer=0, kv_heads=KV_HEADS, size=SIZE, kind=kind)[0] for kind in ("min", "max"))
    for (scores,) in (
        run("antidiagonal_scores", kv, q, **KEYS, stride=8), run("compressed_scores", kv, q, **KEYS),
        run("bound_scores", kv, q, lo, hi, scale=SCALE),
    ):  # fmt: skip
        assert (scores[2:5].argmax(axis=2) == 1).all()


@pytest.mark.parametrize("op", ["antidiagonal_scores", "compressed_scores"])
def test_rows_are_the_same_in_chunks(op: str) -> None:
    """Chunks that end between blocks give the rows of the whole, whatever else is in the step."""
    _, q, keys = step([300])
    attrs = {**KEYS, **({"stride": 8} if op.startswith("anti") else {})}
    (whole,) = run(op, filled([300], keys[0]), q, **attrs)
    kv = ReferenceKvCache(1, 2)
    for first, end in ((0, 128), (128, 192), (192, 300)):
        kv.begin_step([end - first, 70])
        kv.append(0, *[np.concatenate([keys[0][first:end], keys[0][:70]])] * 2)
        (part,) = run(op, kv, np.concatenate([q[first:end], q[:70]]), **attrs)
        rows, n = -(-(end - first) // BLOCK), -(-end // BLOCK)
        assert np.array_equal(part[:rows, :, :n], whole[first // BLOCK : first // BLOCK + rows, :, :n])


RULES: list[tuple[str, str, list[float]]] = [
    ("select_top_k", "k", [1, 2, 4, 5]), ("select_share", "density", [0.1, 0.5, 0.9, 1.0]),
    ("select_top_p", "p", [0.2, 0.7, 0.95, 1.0]), ("select_above", "threshold", [0.5, 0.1, 1e-9, 0.0]),
]  # fmt: skip


def mass_scores(kind: str, nats: float, seed: int) -> Array:
    """Scores f32[6, 2, 5] of a sequence of 300 tokens."""
    rng = np.random.default_rng(seed)
    x = np.exp(rng.standard_normal((6, 2, 5)) - nats * (np.arange(5) > 0))
    if kind == "ties":
        x = np.full_like(x, 0.2)
    elif kind == "odd":
        x[rng.random(x.shape) < 0.3] = np.nan
        x[rng.random(x.shape) < 0.2] = np.inf
    return x.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["led", "ties", "odd"]), nats=st.sampled_from([0.0, 20.0, 60.0, 110.0]),
    seed=st.integers(0, 999), rule=st.sampled_from(RULES),
)  # fmt: skip
def test_rules(kind: str, nats: float, seed: int, rule: tuple[str, str, list[float]]) -> None:
    """S1 the loosest setting is dense, S3 forced blocks stay, S4 looser settings are supersets, S5 mass is kept."""
    kv, _, _ = step([300])
    scores, forced = mass_scores(kind, nats, seed), np.random.default_rng(seed).random((6, 2, 5)) < 0.2
    op, attr, values = rule
    causal = np.zeros((6, 2, 5), bool)
    causal[:5] = np.tri(5, dtype=bool)[:, None]
    before = np.zeros_like(causal)
    for value in values:
        (kept,) = run(op, kv, scores, forced, **{attr: value})
        assert not (kept & ~causal).any() and not (forced & causal & ~kept).any() and not (before & ~kept).any()
        before = kept
        if op == "select_top_p":
            seen = np.where(causal & (scores > 0), scores, 0).astype(np.float64)
            want, got = value * seen.sum(axis=2), np.where(kept, seen, 0).sum(axis=2)
            # The sums are in another order than the rule's.
            assert ((got >= want * (1 - 1e-12)) | ~np.isfinite(want))[:5].all()
        if op == "select_top_k":
            rows = np.minimum(np.arange(1, 6), value)[:, None]
            assert (kept[:5].sum(axis=2) == np.maximum(rows, (forced & causal)[:5].sum(axis=2))).all()
    assert np.array_equal(before, causal)
