"""The references of attention over listed tokens and of merging, against every pair of query and key on its own."""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.ir import ReferenceKvCache, sym
from fretsaw.ir.op import ShapeError, get_op
from fretsaw.ir.ops.cache import KV_CACHE
from fretsaw.ir.types import TensorType, ValueType
from tests.turning import turned

HEADS, KEY_HEADS, SIZE, SCALE = 4, 2, 8, 0.5
ATTRS = {"layer": 0, "scale": SCALE, "value_size": SIZE}
STEPS = [[70, 0, 3], [40, 1, 150]]


def _step() -> tuple[ReferenceKvCache, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(0)
    kv = ReferenceKvCache(1, 3)
    for step in STEPS:
        kv.begin_step(step)
        kv.append(0, *rng.standard_normal((2, sum(step), KEY_HEADS, SIZE)))
    return kv, rng.standard_normal((sum(STEPS[-1]), HEADS, SIZE)), rng


def _lists(kv: ReferenceKvCache, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending positions out of ``chosen`` bool[QB, G, S], and rubbish behind their ends."""
    ids = np.full(chosen.shape, 10**6, np.int32)
    cnt = np.zeros(chosen.shape[:2], np.int32)
    for block in kv.query_blocks():
        for g in range(chosen.shape[1]):
            own = np.flatnonzero(chosen[block.row, g, : block.end])
            ids[block.row, g, : own.size], cnt[block.row, g] = own, own.size
    return ids, cnt


def _oracle(kv: ReferenceKvCache, q: np.ndarray, chosen: np.ndarray, decode: bool) -> tuple[np.ndarray, np.ndarray]:
    out, lse = np.zeros(q.shape), np.full(q.shape[:2], -np.inf)
    for block in kv.query_blocks():
        k, v = kv.read(0, block.sequence)
        for at, pos in zip(range(block.tokens.start, block.tokens.stop), block.positions, strict=True):
            for h in range(HEADS):
                mine, g = h * KEY_HEADS // HEADS, h * chosen.shape[1] // HEADS
                keys = [c for c in range(pos + 1) if chosen[block.row, g, c] and (decode or not block.single)]
                if keys:
                    weights = np.exp(SCALE * (k[keys, mine] @ q[at, h]))
                    out[at, h], lse[at, h] = weights @ v[keys, mine] / weights.sum(), np.log(weights.sum())
    return out, lse


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_listed_tokens_are_a_mask(groups: int, decode: bool) -> None:
    kv, q, rng = _step()
    chosen = rng.random((kv.dims["QB"], groups, 192)) < 0.3
    chosen[0] = False  # a block that lists nothing
    attrs = {**ATTRS, "decode": decode}
    out, lse = get_op("gather_attention").reference([kv, q, *_lists(kv, chosen)], attrs)
    want, want_lse = _oracle(kv, q, chosen, decode)
    # f64 throughout: eps times 192 terms of at most 4. The logarithms are rounded to f32: 4 units of a number below 8.
    np.testing.assert_allclose(out, want, rtol=0, atol=2.0**-53 * 192 * 4)
    np.testing.assert_allclose(lse, want_lse, rtol=0, atol=8 * 2.0**-24)
    assert np.isneginf(lse).any() and not out[np.isneginf(lse)].any()


LSE = {"lse": True}


def test_a_partition_merges_to_everything() -> None:
    kv, q, rng = _step()
    chosen = rng.random((kv.dims["QB"], 2, 192)) < 0.3
    gather, merge = get_op("gather_attention").reference, get_op("merge_attention").reference
    attrs = {**ATTRS, "decode": True}
    sides = [x for c in (chosen, ~chosen) for x in gather([kv, q, *_lists(kv, c)], attrs)]
    out, lse = merge(sides, LSE)
    (alone,) = merge(sides, {})
    assert np.array_equal(alone, out)
    want, want_lse = _oracle(kv, q, np.ones_like(chosen), True)
    # The sides are weighed by exponentials of logarithms in f32: a relative error of a few of its units.
    np.testing.assert_allclose(out, want, rtol=0, atol=2.0**-19)
    np.testing.assert_allclose(lse, want_lse, rtol=0, atol=2.0**-19)
    nothing = [np.zeros_like(out), np.full_like(lse, -np.inf)]
    for pair in ([*sides[:2], *nothing], [*nothing, *sides[:2]]):
        same, same_lse = merge(pair, LSE)
        np.testing.assert_array_equal(same, sides[0])
        np.testing.assert_array_equal(same_lse, sides[1])
    none, none_lse = merge([*nothing, *nothing], LSE)
    assert not none.any() and np.isneginf(none_lse).all()


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_at_one_distance_only_the_distance_counts(layout: str) -> None:
    """Keys and queries that went through a rotary embedding, read as if all keys stood 40 slots before the query."""
    kv, q, rng = _step()
    freq = (0.3 ** np.arange(SIZE // 2)).astype(np.float32)
    chosen = rng.random((kv.dims["QB"], 2, 192)) < 0.3
    went, at = ReferenceKvCache(1, 3), [0, 0, 0]
    bare = [kv.read(0, b) for b in range(3)]
    for step in STEPS:
        went.begin_step(step)
        parts = []
        for b, n in enumerate(step):
            slots = np.arange(at[b], at[b] + n)
            keys, values = (x[slots] for x in bare[b])
            parts.append((_turned(keys, slots, freq, layout), values))
            at[b] += n
        went.append(0, *(np.concatenate([p[i] for p in parts]) for i in range(2)))
    own = np.zeros(len(q), int)
    for block in kv.query_blocks():
        own[block.tokens] = block.positions
    gather, attrs = get_op("gather_attention").reference, {**ATTRS, "decode": True, "layout": layout}
    got = gather([went, _turned(q, own, freq, layout), *_lists(kv, chosen), freq], {**attrs, "distance": 40})
    want = _oracle(kv, _turned(q, np.full(len(q), 40), freq, layout), chosen, True)
    for mine, exact in zip(got, want, strict=True):  # f64, but for frequencies and logarithms in f32
        np.testing.assert_allclose(mine, exact, rtol=0, atol=2.0**-20)


def _turned(x: np.ndarray, slots: np.ndarray, freq: np.ndarray, layout: str) -> np.ndarray:
    """x [n, H, E] turned by slots [n]."""
    return turned(x, slots[:, None, None] * freq.astype(np.float64), layout)


def test_types_that_do_not_fit_are_named() -> None:
    q, cnt = TensorType("f32", (5, HEADS, SIZE)), TensorType("i32", (2, 3))
    with pytest.raises(ShapeError, match="lists i32"):
        get_op("gather_attention").shape_rule([KV_CACHE, q, TensorType("i32", (2, 3, 9)), cnt], ATTRS)
    lists: list[ValueType] = [KV_CACHE, q, TensorType("i32", (sym("QB"), 2, 9)), TensorType("i32", (sym("QB"), 2))]
    with pytest.raises(ShapeError, match="goes with inv_freq, is 7"):
        get_op("gather_attention").shape_rule(lists, {**ATTRS, "distance": 7})
    with pytest.raises(ShapeError, match="goes with inv_freq, is 0"):
        get_op("gather_attention").shape_rule([*lists, TensorType("f32", (4,))], ATTRS)
    with pytest.raises(ShapeError, match="does not turn all"):
        get_op("gather_attention").shape_rule([*lists, TensorType("f32", (3,))], {**ATTRS, "distance": 7})
    lse = TensorType("f32", (5, HEADS))
    with pytest.raises(ShapeError, match="one type"):
        get_op("merge_attention").shape_rule([q, lse, TensorType("f32", (5, HEADS, 4)), lse], {})
    with pytest.raises(ShapeError, match="beside"):
        get_op("merge_attention").shape_rule([q, TensorType("f32", (5,)), q, lse], {})
