"""Losses of heads against an oracle that computes every row on its own, and the bound over them."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.ir.errors import PassError
from fretsaw.passes.sparse.calibrate import measure as measure_module
from fretsaw.passes.sparse.calibrate.layer import Layer, Reads, causal_blocks
from fretsaw.passes.sparse.calibrate.measure import measure

HEADS, KEY_HEADS, SIZE = 4, 2, 8


def layer(tokens: int, seed: int = 0, dtype: type = np.float64, sinks: bool = False, softcap: float = 0.0) -> Layer:
    rng = np.random.default_rng(seed)
    q = 3 * rng.standard_normal((HEADS, tokens, SIZE))
    k, v = rng.standard_normal((2, KEY_HEADS, tokens, SIZE))
    extra: np.ndarray | None = rng.standard_normal(HEADS).astype(dtype) if sinks else None
    return Layer(0, q.astype(dtype), k.astype(dtype), v.astype(dtype), 0.5, softcap, extra)


def reads(found: Layer, seed: int, share: float, spans: list[tuple[int, int]] | None = None) -> Reads:
    """Random blocks with the diagonal."""
    rng = np.random.default_rng(seed)
    n = found.blocks
    blocks = (rng.random((HEADS, n, n)) < share) | np.eye(n, dtype=bool)[None]
    chosen = spans or [(0, 0)] * HEADS
    return Reads(blocks & np.tri(n, dtype=bool), tuple(s for s, _ in chosen), tuple(w for _, w in chosen))


def row(found: Layer, way: Reads | None, head: int, pos: int) -> tuple[np.ndarray, float]:
    """Output and kept mass of one row."""
    keys = np.arange(pos + 1)
    logits = found.scale * (found.k[head // 2, keys] @ found.q[head, pos])
    if found.softcap:
        logits = found.softcap * np.tanh(logits / found.softcap)
    top = logits.max()
    e = np.exp(logits - top)
    rest = 0.0 if found.sinks is None else np.exp(found.sinks[head] - top)
    if way is None:
        return e @ found.v[head // 2, keys] / (e.sum() + rest), 1.0
    seen = way.blocks[head, pos // 64][keys // 64]
    if way.window[head]:
        seen = seen & ((pos - keys < way.window[head]) | (keys < way.sink[head]))
    e_read = np.where(seen, e, 0)
    return e_read @ found.v[head // 2, keys] / (e_read.sum() + rest), (e_read.sum() + rest) / (e.sum() + rest)


@pytest.mark.parametrize("kind", ["plain", "sinks", "softcap", "spans"])
def test_losses_are_those_of_every_row_on_its_own(kind: str) -> None:
    found = layer(200, sinks=kind == "sinks", softcap=4.0 if kind == "softcap" else 0.0)
    spans = [(0, 0), (3, 70), (64, 1), (0, 150)] if kind == "spans" else None
    way, first = reads(found, 1, 0.5, spans), 70
    got = measure(found, [way], first)
    for head in range(HEADS):
        rows = [(row(found, None, head, r)[0], *row(found, way, head, r)) for r in range(first, 200)]
        dense, sparse, mass = (np.array(x) for x in zip(*rows, strict=True))
        loss = got.losses[0][head]
        assert loss.mass == pytest.approx(mass.mean(), abs=1e-12)
        assert loss.mass_p1 == pytest.approx(np.quantile(mass, 0.01), abs=1e-12)
        assert loss.error == pytest.approx(np.linalg.norm(dense - sparse) / np.linalg.norm(dense), abs=1e-12)
        assert loss.off == pytest.approx((np.abs(dense - sparse) > 5e-3).mean(), abs=1e-12)
        assert got.power[head] == pytest.approx(np.square(dense).sum())
        reach = np.linalg.norm(found.v[head // 2], axis=1).max()
        assert loss.bound == pytest.approx(np.linalg.norm(2 * (1 - mass) * reach) / np.linalg.norm(dense))
        assert 0 < loss.error <= loss.bound
        assert loss.density == pytest.approx(way.blocks[head].sum() / causal_blocks(4))
        assert np.abs(got.dense[first:, head] - dense).max() < 1e-12


@pytest.mark.parametrize("sinks", [False, True])
def test_many_ways_at_once_are_each_on_its_own(sinks: bool) -> None:
    """All ways share one product over blocks; the oracle goes row by row, key by key."""
    found, first = layer(200, sinks=sinks), 70
    spans = [(0, 0), (3, 70), (64, 1), (0, 150)]
    ways = [reads(found, 1, 0.5), reads(found, 2, 0.0), reads(found, 3, 0.7, spans), reads(found, 4, 1.1)]
    got = measure(found, ways, first)
    for head in range(HEADS):
        dense = np.array([row(found, None, head, r)[0] for r in range(first, 200)])
        for way, losses in zip(ways, got.losses, strict=True):
            rows = [row(found, way, head, r) for r in range(first, 200)]
            sparse, mass = (np.array(x) for x in zip(*rows, strict=True))
            assert losses[head].mass == pytest.approx(mass.mean(), abs=1e-12)
            assert losses[head].moved == pytest.approx(np.square(dense - sparse).sum(), rel=1e-9, abs=1e-12)
            assert losses[head].off == pytest.approx((np.abs(dense - sparse) > 5e-3).mean(), abs=1e-12)
    alone = [measure(found, [way], first).losses[0] for way in ways]
    for mine, theirs in zip(got.losses, alone, strict=True):
        for a, b in zip(mine, theirs, strict=True):  # sums in another order, in f64
            assert astuple(a) == pytest.approx(astuple(b), rel=1e-9, abs=1e-12)


def test_rows_whose_mass_is_lost_in_rounding_are_computed_again() -> None:
    """All that one way reads weighs less than f32 can tell from nothing, beside a way that reads everything."""
    exact = layer(192)
    k = exact.k.copy()
    k[:, :64] *= 20  # logits of hundreds: later blocks keep weights of e^-100 and less
    exact = replace(exact, k=k)
    found = replace(exact, q=exact.q.astype(np.float32), k=k.astype(np.float32), v=exact.v.astype(np.float32))
    faint, all_of_it = reads(found, 0, 0.0), reads(found, 0, 1.1)
    both = measure(found, [faint, all_of_it], 64).losses
    assert min(x.mass_p1 for x in both[0]) < 1e-30
    for head in range(HEADS):
        assert both[1][head].error < 1e-5
        dense, sparse = (np.array([row(exact, way, head, r)[0] for r in range(64, 192)]) for way in (None, faint))
        assert both[0][head].error == pytest.approx(np.linalg.norm(dense - sparse) / np.linalg.norm(dense), rel=1e-3)


def test_mass_of_blocks_is_that_of_their_weights() -> None:
    found = layer(150)
    got = measure(found, [], 0)
    assert got.losses == () and got.block_mass.shape == (HEADS, 3, 3)
    p = np.stack([np.pad(found.weights(0, slice(r, r + 1))[0], (0, 149 - r)) for r in range(150)])
    assert got.block_mass[0, 2, 1] == pytest.approx(p[128:, 64:128].sum(), abs=1e-5)  # held in f32
    assert got.block_mass[0].sum() == pytest.approx(150, abs=1e-4)


def test_everything_read_loses_nothing() -> None:
    found = layer(150, dtype=np.float32)
    loss = measure(found, [reads(found, 0, 1.1)]).losses[0][0]
    assert loss.density == 1 and loss.off == 0
    assert loss.mass == pytest.approx(1, abs=1e-6) and loss.error < 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(1, 200), st.booleans())
def test_the_bound_holds_and_reading_more_keeps_more(seed: int, share: float, tokens: int, sinks: bool) -> None:
    found = layer(tokens, seed, np.float32, sinks)
    less = reads(found, seed, share)
    more = replace(less, blocks=less.blocks | reads(found, seed + 1, 0.3).blocks)
    a, b = measure(found, [less, more]).losses  # raises where a row breaks the bound
    for x, y in zip(a, b, strict=True):
        assert x.error <= x.bound and x.mass <= y.mass + 1e-6 and x.density <= y.density


def test_a_broken_bound_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found = layer(200)
    monkeypatch.setattr(measure_module, "_reach", lambda layer, head: 1e-3)
    with pytest.raises(PassError, match=r"an output moved by .* more than 2 \(1 - m\) max \|v\| allows") as error:
        measure(found, [reads(found, 1, 0.3)])
    assert error.value.where == "layer 0, head 0"


def test_a_row_that_reads_nothing_is_an_error() -> None:
    found = layer(200)
    way = reads(found, 1, 0.5)
    way.blocks[2, 1] = False
    with pytest.raises(PassError, match="a row reads nothing"):
        measure(found, [way])


def test_lists_become_blocks() -> None:
    idx = np.array([[[0, 2, 9]], [[1, 7, 7]], [[0, 1, 2]], [[5, 5, 5]]], np.int32)
    way = Reads.of(idx, np.array([[2], [1], [3], [0]], np.int32), 2, {"window": (0, 5), "sink": (0, 1)})
    assert way.blocks[1].tolist() == [[True, False, True], [False, True, False], [True, True, True]]
    assert way.window == (0, 5) and way.sink == (0, 1) and way.listed.tolist() == [6, 6]
