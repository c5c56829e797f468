"""Which blocks each method reads, written from its source with dense matrices of a whole sequence; nothing of the IR.

Queries [S, H, E] and keys [S, K, E] after their rotary embedding; head h reads the keys of head h * K // H. A mask is
bool[n, H, n] over blocks of 64. Rules see scores [n, n] of one head and forced blocks, and are causal by block.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
BLOCK = 64


def blocks_of(count: int) -> int:
    return -(-count // BLOCK)


def own_keys(q: Array, k: Array) -> Array:
    """Keys [S, H, E], one head for every head of queries."""
    out: Array = np.repeat(k, q.shape[1] // k.shape[1], axis=1).astype(np.float64)
    return out


def per_head(q: Array, k: Array, rule: Callable[[Array, Array], Array]) -> Array:
    """``rule`` of queries and keys [S, E] of every head, causal by block, bool[n, H, n]."""
    keys = own_keys(q, k)
    n = blocks_of(len(q))
    masks = [rule(q[:, h].astype(np.float64), keys[:, h]) & np.tri(n, dtype=bool) for h in range(q.shape[1])]
    return np.stack(masks, axis=1)


def attention_map(q: Array, k: Array, scale: float) -> Array:
    """Causal softmax of the last len(q) rows, [R, S]."""
    logits = q @ k.T * scale
    rows = np.arange(len(k) - len(q), len(k))[:, None]
    logits = np.where(np.arange(len(k))[None] <= rows, logits, -np.inf)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    out: Array = e / e.sum(axis=1, keepdims=True)
    return out


def to_blocks(seen: Array) -> Array:
    """Blocks with a seen pair of a token mask bool[S, S]."""
    n = blocks_of(len(seen))
    padded = np.zeros((n * BLOCK, n * BLOCK), bool)
    padded[: len(seen), : len(seen)] = seen
    out: Array = padded.reshape(n, BLOCK, n, BLOCK).max(axis=(1, 3))
    return out


def means(x: Array) -> Array:
    """Block means [n, E] of [S, E] over the tokens that there are."""
    return np.stack([x[i : i + BLOCK].mean(axis=0) for i in range(0, len(x), BLOCK)])


def near(n: int, sink: int, local: int) -> Array:
    """The first ``sink`` blocks and the last ``local`` ones, bool[n, n]."""
    i, j = np.arange(n)[:, None], np.arange(n)[None]
    out: Array = (j < sink) | ((i - j < local) & (i >= j))
    return out


def top_k(scores: Array, forced: Array, count: Callable[[int], int]) -> Array:
    """Per row: forced blocks, then the best until ``count(visible)``."""
    out: Array = forced & np.tri(len(scores), dtype=bool)
    for i in range(len(scores)):
        for j in sorted(range(i + 1), key=lambda j: (-scores[i, j], j)):
            if out[i].sum() < count(i + 1):
                out[i, j] = True
    return out


def top_p(masses: Array, forced: Array, p: float) -> Array:
    """Per row: forced blocks, then the heaviest while what is kept is less than p of the row."""
    out: Array = forced & np.tri(len(masses), dtype=bool)
    for i in range(len(masses)):
        wanted = p * masses[i, : i + 1].sum()
        for j in sorted(range(i + 1), key=lambda j: (-masses[i, j], j)):
            if not out[i, j] and masses[i][out[i]].sum() < wanted:
                out[i, j] = True
    return out


def spans(count: int, sink: int, window: int, last: int = 0) -> Array:
    """Tokens that sink, window and dense last rows leave, bool[S, S]."""
    r, c = np.arange(count)[:, None], np.arange(count)[None]
    out: Array = (c <= r) & ((c < sink) | (r - c < window) | (r >= count - last))
    return out


def antidiagonal(q: Array, k: Array, stride: int, scale: float) -> Array:
    """Card 19, steps 2 to 5, for a length that is a multiple of the stride: masses [n, n]."""
    cells, size = len(q) // stride, q.shape[1]
    turned = q.reshape(cells, stride, size)[:, ::-1].reshape(cells, -1)
    a = turned @ k.reshape(cells, -1).T * scale / stride
    a = np.where(np.tri(cells, dtype=bool), a, -np.inf)
    a = np.exp(a - a.max(axis=1, keepdims=True))
    a /= a.sum(axis=1, keepdims=True)
    n, per = blocks_of(len(q)), BLOCK // stride
    padded = np.zeros((n * per, n * per))
    padded[:cells, :cells] = a
    out: Array = padded.reshape(n, per, n, per).sum(axis=(1, 3))
    return out


def pooled(q: Array, k: Array, scale: float) -> Array:
    out: Array = means(q) @ means(k).T * scale
    return out


def rms(x: Array) -> float:
    return float(np.sqrt((x**2).mean()))


def band(q: Array, k: Array, dims: Array) -> Array:
    """Prism's masses of one band, the temperature of each row from the blocks that it sees."""
    qm, km, size = means(q), means(k), q.shape[1]
    out = np.zeros((len(qm), len(qm)))
    for i in range(len(qm)):
        keys = km[: i + 1]
        heat = np.sqrt(len(dims) / size) * rms(qm[i, dims]) / rms(qm[i]) * rms(keys[:, dims]) / rms(keys)
        logits = keys[:, dims] @ qm[i, dims] / (np.sqrt(len(dims)) * heat)
        e = np.exp(logits - logits.max())
        out[i, : i + 1] = e / e.sum()
    return out


def lines(q: Array, k: Array, scale: float, rows: int) -> tuple[Array, Array]:
    """Mass by column and by distance of the last rows, [S] each."""
    a = attention_map(q[-rows:], k, scale)
    first = len(k) - len(a)
    far = np.zeros(len(k))
    for r in range(len(a)):
        for c in range(first + r + 1):
            far[first + r - c] += a[r, c]
    return a.sum(axis=0), far


def vertical_slash(q: Array, k: Array, scale: float, vertical: int, slash: int) -> Array:
    """Card 1, algorithm A, steps 1 to 4 as a token mask bool[S, S]: the ideal lines."""
    columns, distances = vertical_and_slash(q, k, scale, vertical, slash)
    out: Array = columns | distances
    return out


def vertical_and_slash(q: Array, k: Array, scale: float, vertical: int, slash: int) -> tuple[Array, Array]:
    """Columns and diagonals of :func:`vertical_slash`, apart."""
    columns, far = lines(q, k, scale, min(64, len(q)))
    columns[:30], far[:100] = np.inf, np.inf
    cols = np.argsort(-columns, kind="stable")[: max(vertical, 30)]
    distances = np.argsort(-far, kind="stable")[: max(slash, 50)]
    r, c = np.arange(len(q))[:, None], np.arange(len(q))[None]
    return (c <= r) & np.isin(c, cols), (c <= r) & np.isin(r - c, distances)


def flex(q: Array, k: Array, scale: float, gamma: float, least: int) -> Array:
    """Card 2, steps 2 to 8 without the pattern test, blocks of 64."""
    n = blocks_of(len(q))
    chosen = []
    for mass in lines(q, k, scale, min(BLOCK, len(q))):
        share = np.sort(mass / mass.sum())[::-1]
        count = max((int((np.cumsum(share) <= gamma).sum()) + 1) // BLOCK + 1, least)
        sums = np.pad(mass, (0, n * BLOCK - len(mass))).reshape(n, BLOCK).sum(axis=1)
        sums[0] = np.inf
        chosen.append(set(np.argsort(-sums, kind="stable")[:count].tolist()))
    columns, distances = chosen
    out = np.array([[(j in columns or i - j in distances) for j in range(n)] for i in range(n)])
    both: Array = out | near(n, 1, 1)
    return both


def compressed(q: Array, k: Array, scale: float, kv_heads: int) -> Array:
    """Card 8, steps 1 to 4, the largest score of the rows of a block: q [S, H, E], k [S, K, E] -> [n, K, n]."""
    count, n = len(q), blocks_of(len(q))
    starts = range(0, count - 31, 16)
    pools = np.stack([own_keys(q, k)[s : s + 32].mean(axis=0) for s in starts]) if count >= 32 else np.zeros((0,))
    out = np.zeros((n, kv_heads, n))
    group = q.shape[1] // kv_heads
    for t in range(count):
        seen = [j for j, s in enumerate(starts) if t >= s + 31]
        if not seen:
            continue
        p = np.zeros((kv_heads, len(starts)))
        for h in range(q.shape[1]):
            logits = pools[seen, h] @ q[t, h].astype(np.float64) * scale
            e = np.exp(logits - logits.max())
            p[h // group, seen] += e / e.sum()
        for b in range(t // BLOCK + 1):
            js = [j for j in range(4 * b - 1, 4 * b + 4) if 0 <= j < len(starts)]
            out[t // BLOCK, :, b] = np.maximum(out[t // BLOCK, :, b], p[:, js].max(axis=1) if js else 0)
    return out
