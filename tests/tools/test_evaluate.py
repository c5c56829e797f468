"""Evaluation against direct sums over scipy's log-softmax, and its edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from scipy.special import log_softmax

from fretsaw.ir.errors import UsageError
from fretsaw.tools import evaluate as module
from fretsaw.tools.evaluate import evaluate, windows
from fretsaw.tools.scorers import cuts

V = 11


class Table:
    """Logits that depend on the token and its place in the window, so that a misread window shows."""

    def __init__(self, seed: int, noise: float = 0.0, block: int = 128) -> None:
        self.table = np.random.default_rng(7).standard_normal((64, V, V)).astype(np.float32)
        self.table += noise * np.random.default_rng(seed).standard_normal(self.table.shape).astype(np.float32)
        self.block = block

    def rows(self, ids: Sequence[int]) -> Iterator[np.ndarray]:
        for start, end in cuts(len(ids), self.block, 1):
            yield np.stack([self.table[i, ids[i]] for i in range(start, end)])


def direct(ids: list[int], context: int, p: Table, q: Table) -> tuple[float, np.ndarray, float]:
    """NLL of q, KL(p || q) per token, top-1 agreement; no blocks, whole windows."""
    nll, kl, same = [], [], []
    for start in range(0, len(ids), context):
        window = ids[start : start + context]
        for i, (token, target) in enumerate(zip(window, window[1:], strict=False)):
            lp = log_softmax(p.table[i, token].astype(np.float64))
            lq = log_softmax(q.table[i, token].astype(np.float64))
            nll.append(-lq[target])
            kl.append(float((np.exp(lp) * (lp - lq)).sum()))
            same.append(lp.argmax() == lq.argmax())
    return float(np.mean(nll)), np.array(kl), float(np.mean(same))


@pytest.mark.parametrize("context", [2, 5, 17, 64])
@pytest.mark.parametrize("blocks", [(1, 1), (3, 128), (128, 2), (5, 3)])
@pytest.mark.parametrize("rows", [1, 4, 128])
def test_against_direct_sums(context: int, blocks: tuple[int, int], rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", rows)
    ids = [int(t) for t in np.random.default_rng(1).integers(0, V, 100)]
    p, q = Table(0, block=blocks[0]), Table(1, 0.5, blocks[1])
    got = evaluate(ids, context, q, p)
    nll, kl, same = direct(ids, context, p, q)
    eps = float(np.finfo(np.float64).eps) * V * len(ids)  # sums of V terms, over the tokens of the text
    assert got["nll"] == pytest.approx(nll, rel=eps)
    assert got["perplexity"] == pytest.approx(np.exp(nll), rel=4 * eps)
    assert got["kl_mean"] == pytest.approx(kl.mean(), rel=1e3 * eps)  # differences of near logarithms
    assert got["kl_p99"] == pytest.approx(np.quantile(kl, 0.99), rel=1e3 * eps)
    assert got["top1_agreement"] == same < 1.0 and got["tokens"] == kl.size


def test_equal_models_are_at_distance_zero() -> None:
    got = evaluate(list(range(10)) * 3, 8, Table(0), Table(0))
    assert got["kl_max"] == 0 and got["top1_agreement"] == 1 and got["nll"] == got["reference_nll"]


def test_windows() -> None:
    assert [list(w) for w in windows(range(7), 3, None)] == [
        [0, 1, 2],
        [3, 4, 5],
    ]  # a last token alone predicts nothing
    assert [list(w) for w in windows(range(8), 3, None)][-1] == [6, 7]
    assert len(list(windows(range(100), 10, 3))) == 3


def test_limit_and_progress() -> None:
    done: list[float] = []
    got = evaluate([1] * 100, 10, Table(0), limit=2, progress=done.append)
    assert got["windows"] == 2 and got["tokens"] == 18 == sum(done) and "kl_mean" not in got


@pytest.mark.parametrize("ids", [[], [3]])
def test_too_short(ids: list[int]) -> None:
    with pytest.raises(UsageError, match=f"the text has {len(ids)} tokens"):
        evaluate(ids, 10, Table(0))


def test_cuts_by_hand() -> None:
    assert cuts(300, 128, 1) == [(0, 128), (128, 256), (256, 300)]
    assert cuts(128, 128, 64) == [(0, 128)]
    assert cuts(300, 200, 64) == [(0, 192), (192, 300)]
    assert cuts(257, 256, 64) == [(0, 192), (192, 257)]  # one token alone would be decoded
    assert cuts(257, 256, 1) == [(0, 256), (256, 257)]
    assert cuts(1, 256, 64) == [(0, 1)]


@pytest.mark.parametrize("align", [1, 64])
def test_cuts_cover_every_token_once(align: int) -> None:
    for size in (128, 191, 512):
        for count in range(1, 1100):
            parts = cuts(count, size, align)
            assert [a for a, _ in parts] == [0, *(b for _, b in parts[:-1])] and parts[-1][1] == count
            assert all(0 < b - a <= size and a % align == 0 for a, b in parts)
            assert align == 1 or count == 1 or all(b - a > 1 for a, b in parts)
