"""Least and greatest keys beside pages: kept through steps, copies and rollbacks, and the scores made of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.backends.program.kv_storage import KvType, read_rows
from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.backends.tvm.kernels.key_bounds import KeyBoundSpec, keep_bounds, stored_bound_scores
from fretsaw.ir.kv import BLOCK
from tests.backends.kernels.kernel_run import Array, Built, threads
from tests.backends.kernels.select_case import LAYER, MIXED, Case, make

SIZE, HEADS, KV_HEADS, SCALE = 24, 6, 2, 0.2


def _steps(case: Case, kernel: Built, parts: list[list[int]]) -> Array:
    """Bounds after the sequences of ``case`` were appended in ``parts``, tokens of each a step. NaN where never set."""
    k, _, table, lens, _ = case.paged
    bounds = np.full((table.size, 2 * SIZE), np.nan, np.float32)
    done = np.zeros(len(case.counts), np.int32)
    for counts in parts:
        cu = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        before = np.broadcast_to(done[None, :, None], lens.shape)
        bounds = kernel(k, table, before, cu, bounds, scalars=(LAYER,))[4]
        done = done + np.array(counts, np.int32)
    return bounds


def _keeper(kv: KvType = "f32") -> Built:
    return Built(keep_bounds(KeyBoundSpec(KV_HEADS, SIZE, V3, kv=kv)))


def _want(case: Case, kv: KvType, lengths: list[int]) -> dict[int, Array]:
    """Bounds by page, from what the pages stand for."""
    k, _, table, _, _ = case.paged
    out = {}
    for i, n in enumerate(lengths):
        for h in range(KV_HEADS):
            for j in range(-(-n // BLOCK)):
                page = int(table[LAYER, i, h, j])
                keys = read_rows(k[page], SIZE, BLOCK, kv, transpose=True)[: n - j * BLOCK]
                out[page] = np.concatenate([keys.min(0), keys.max(0)])
    return out


@pytest.mark.parametrize("kv", ["f32", "f16", "int8"])
def test_bounds_are_those_of_the_tokens_in_a_page(kv: KvType) -> None:
    case = make(*MIXED, HEADS, KV_HEADS, SIZE, kv)
    got = _steps(case, _keeper(kv), [case.before, case.counts])
    want = _want(case, kv, [a + b for a, b in zip(case.counts, case.before, strict=True)])
    for page in range(len(got)):
        if page in want:
            np.testing.assert_array_equal(got[page], want[page])
        else:
            assert np.isnan(got[page]).all(), "a page of nobody's was written"


@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(1, 90), min_size=1, max_size=12))
def test_any_cut_gives_the_same_bounds(cuts: list[int]) -> None:
    case = make([sum(cuts)], [0], HEADS, KV_HEADS, SIZE)
    got = _steps(case, KEEPER, [[n] for n in cuts])
    for page, want in _want(case, "f32", [sum(cuts)]).items():
        np.testing.assert_array_equal(got[page], want)


def test_a_token_that_was_taken_back_leaves_no_trace() -> None:
    """100 tokens, 10 of them taken back, 3 others in their place."""
    case = make([100], [0], HEADS, KV_HEADS, SIZE)
    bounds = _steps(case, KEEPER, [[100]])
    k, _, table, lens, _ = case.paged
    k = k.copy()
    for h in range(KV_HEADS):
        k[table[LAYER, 0, h, 1], :, 90 - BLOCK : 93 - BLOCK] = 0.25  # the slots after them keep what they held
    args = (k, table, np.full_like(lens, 90), np.array([0, 3], np.int32), bounds)
    got = KEEPER(*args, scalars=(LAYER,))[4]
    for h in range(KV_HEADS):
        page = table[LAYER, 0, h, 1]
        keys = k[page].T[: 93 - BLOCK]
        np.testing.assert_array_equal(got[page], np.concatenate([keys.min(0), keys.max(0)]))
        assert not np.array_equal(got[page], bounds[page])


@pytest.mark.parametrize("kv", ["f32", "int8"])
def test_scores_are_the_bounds_of_rows_that_decode(kv: KvType) -> None:
    """Against the op's reference; sequences with more tokens in the step, and with none, stay at -inf."""
    decoding = [1, 1, 0, 70, 1, 1, 1], [300, 130, 7, 37, 128, 63, 0]
    for counts, before in (decoding, ([1], [1000]), MIXED):
        case = make(counts, before, HEADS, KV_HEADS, SIZE, kv)
        bounds = _steps(case, _keeper(kv), [case.before, case.counts])
        attrs = {"layer": LAYER, "kv_heads": KV_HEADS, "size": SIZE, "decode": True}
        lo, hi = (case.reference("pool_keys", **attrs, kind=kind)[0] for kind in ("min", "max"))
        (want,) = case.reference("bound_scores", case.q, lo, hi, scale=SCALE, decode=True, single=True)
        kernel = Built(stored_bound_scores(KeyBoundSpec(KV_HEADS, SIZE, V3, HEADS, SCALE)))
        _, _, table, lens, cu = case.paged
        got = kernel(table, lens, cu, bounds, case.q, np.full_like(want, np.nan), scalars=(LAYER,), results=1)[-1]
        np.testing.assert_array_equal(np.isneginf(got), np.isneginf(want))
        seen = ~np.isneginf(want)
        assert seen.any()
        # 2 * SIZE products of about 4 * 4 each, added in f32.
        np.testing.assert_allclose(got[seen], want[seen], rtol=0, atol=float(2 * SIZE * 16 * np.finfo(np.float32).eps))


def test_bounds_hold_for_every_key() -> None:
    """What a bound promises: no logit of the page is above it. The same with fewer threads, to the bit."""
    case = make([1], [500], HEADS, KV_HEADS, SIZE)
    bounds = _steps(case, KEEPER, [case.before, case.counts])
    kernel = Built(stored_bound_scores(KeyBoundSpec(KV_HEADS, SIZE, V3, HEADS, SCALE)))
    _, _, table, lens, cu = case.paged
    out = np.zeros((case.rows, HEADS, case.width), np.float32)
    got = kernel(table, lens, cu, bounds, case.q, out, scalars=(LAYER,), results=1)[-1]
    keys, _ = case.cache.read(LAYER, 0)
    for h in range(HEADS):
        logits = keys[:, h * KV_HEADS // HEADS] @ case.q[0, h] * SCALE
        for j in range(0, len(logits), BLOCK):
            assert logits[j : j + BLOCK].max() <= got[0, h, j // BLOCK] + 1e-5
    with threads(1):
        alone = kernel(table, lens, cu, bounds, case.q, out, scalars=(LAYER,), results=1)[-1]
    np.testing.assert_array_equal(got, alone)


def test_nan_keys_are_not_hidden_behind_bounds() -> None:
    """A comparison that fails keeps the later one, so what a NaN does to bounds is what it did to pools: never more
    than its own page."""
    case = make([100], [0], HEADS, KV_HEADS, SIZE)
    k, _, table, _, _ = case.paged
    k[table[LAYER, 0, 0, 1], :, 3] = np.nan
    got = _steps(case, KEEPER, [[100]])
    page = table[LAYER, 0, 0, 0]
    np.testing.assert_array_equal(got[page], _want(case, "f32", [100])[int(page)])


KEEPER = _keeper()
