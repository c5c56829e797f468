"""Grids of codes: bounds, edges, and that a search does not lose to the span."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.passes.quantize.grid import F16_MAX, Floats, Grid, check_weights, search, span

BITS = (2, 3, 4, 8)
EPS16 = 2.0**-11  # half a step of f16, relative


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def squared(w: Floats, grid: Grid, bits: int, weight: Floats | float = 1.0) -> Floats:
    return np.asarray(((grid.values(grid.codes(w, bits)) - w).astype(np.float64) ** 2 * weight).sum(-1))


@given(
    values=st.lists(st.floats(-F16_MAX, F16_MAX, width=32), min_size=8, max_size=8), bits=st.sampled_from(BITS),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_no_weight_is_further_from_its_code_than_half_a_step(values: list[float], bits: int) -> None:
    w = np.array([values], np.float32)
    grid = span(w, bits)
    off = np.abs(grid.values(grid.codes(w, bits)).astype(np.float64) - w)
    low, high = float(w.min()), float(w.max())
    step = (high - low) / (2**bits - 1)
    # The scale and the minimum are rounded to f16: by EPS16 of them, or by half of the least f16.
    slack = EPS16 * (abs(low) + (high - low)) * 2 + 2.0**-24 * 2**bits
    assert off.max() <= step / 2 * (1 + EPS16) + slack


@pytest.mark.parametrize("bits", BITS)
def test_groups_that_hold_one_number(bits: int) -> None:
    w = np.array([[0.0] * 8, [-0.0] * 8, [0.3] * 8, [-5e4] * 8, [1e-8] * 8], np.float32)
    for make in (span, search):
        grid = make(w, bits)
        assert np.array_equal(grid.values(grid.codes(w, bits)), w.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("bits", BITS)
def test_what_is_on_a_grid_stays(bits: int) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**bits, (50, 32), dtype=np.uint8)
    codes[:, :2] = 0, 2**bits - 1  # the ends are there, so the grid can be read off
    scales = np.ldexp(rng.integers(1, 8, 50).astype(np.float32), -6).astype(np.float16)
    w = Grid(scales, (scales * np.float16(-3)).astype(np.float16)).values(codes)
    for make in (span, search):
        grid = make(w, bits)
        assert np.array_equal(grid.codes(w, bits), codes) and np.array_equal(grid.values(codes), w)


@pytest.mark.parametrize("bits", BITS)
def test_a_search_never_loses_to_the_span(bits: int) -> None:
    w = normal(1, 400, 32)
    w[::7, 3] *= 8  # outliers
    weight = np.abs(normal(2, 32)) + np.float32(0.1)
    plain, found, weighted = span(w, bits), search(w, bits), search(w, bits, weight)
    assert (squared(w, found, bits) <= squared(w, plain, bits) * (1 + 1e-6)).all()
    assert (squared(w, weighted, bits, weight) <= squared(w, plain, bits, weight) * (1 + 1e-6)).all()
    assert squared(w, found, bits).sum() < (0.8 if bits < 4 else 0.95) * squared(w, plain, bits).sum()
    assert squared(w, weighted, bits, weight).sum() < squared(w, found, bits, weight).sum()


def test_rows_do_not_depend_on_each_other() -> None:
    w = normal(3, 20, 32)
    whole = search(w, 3)
    for i in range(0, 20, 7):
        one = search(w[i : i + 1], 3)
        assert one.scales[0] == whole.scales[i] and one.minima[0] == whole.minima[i]


@pytest.mark.parametrize(("value", "why"), [(np.nan, "NaN"), (np.inf, "infinity"), (7e4, "70000, and scales")])
def test_weights_that_no_grid_holds(value: float, why: str) -> None:
    w = normal(4, 2, 8)
    w[1, 3] = value
    with pytest.raises(ValueError, match=why):
        check_weights(w)
    check_weights(np.zeros((0, 8), np.float32))
