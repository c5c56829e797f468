"""The choice of widths against all choices, its ties, its limits, and PMQ's costs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.passes.quantize.allocate import Infeasible, allocate, significance


def brute(
    costs: np.ndarray, widths: list[int], budget: int, required: list[int]
) -> tuple[float, tuple[int, ...]] | None:
    found = []
    for choice in product(range(len(widths)), repeat=len(costs)):
        bits = tuple(widths[i] for i in choice)
        if sum(bits) <= budget and set(required) <= set(bits):
            found.append((float(sum(costs[e, i] for e, i in enumerate(choice))), bits))
    return min(found) if found else None


@given(
    seed=st.integers(0, 2**32 - 1), items=st.integers(1, 6), slack=st.integers(-1, 12), ties=st.booleans(),
    required=st.sampled_from([[], [2], [2, 3]]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_equals_the_best_of_all_choices(seed: int, items: int, slack: int, ties: bool, required: list[int]) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.integers(0, 4, (items, 3)).astype(float) if ties else rng.uniform(0, 1, (items, 3))
    want = brute(costs, [1, 2, 3], items + slack, required)
    if want is None:
        with pytest.raises(Infeasible, match=f"within {items + slack} bits"):
            allocate(costs, [1, 2, 3], items + slack, required)
        return
    got = allocate(costs, [1, 2, 3], items + slack, required)
    assert abs(sum(costs[e, w - 1] for e, w in enumerate(got)) - want[0]) < 1e-9
    assert sum(got) <= items + slack and set(required) <= set(got)
    if ties:
        assert got == want[1]


def test_sixty_four_experts() -> None:
    """Large enough that trying all of them is out of the question, and an optimum that is known: costs that fall by the
    same amount for each bit, so the bits go to the experts that gain most."""
    gain = np.random.default_rng(0).permutation(64).astype(float)
    costs = np.stack([gain * 2, gain, gain * 0], axis=1)
    got = allocate(costs, [1, 2, 3], 64 + 40)
    order = np.argsort(-gain)
    assert sum(got) == 104 and all(got[e] == 3 for e in order[:20]) and all(got[e] == 1 for e in order[20:])


def test_costs_of_pmq() -> None:
    frequency, weight, errors = np.array([30.0, 10.0]), np.array([3.0, 1.0]), np.array([[4.0, 1.0], [8.0, 2.0]])
    got = significance(frequency, weight, errors, (1, 1.5, 2))
    want = [[0.75 * 0.75**1.5 * 16, 0.75 * 0.75**1.5], [0.25 * 0.25**1.5 * 64, 0.25 * 0.25**1.5 * 4]]
    assert np.allclose(got, want)
    assert np.array_equal(significance(np.zeros(2), weight, errors, (1, 1, 1)), np.zeros((2, 2)))  # nobody was chosen
