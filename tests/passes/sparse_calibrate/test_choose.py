"""The integer program against all choices of a small one, and what its plans say."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.ir.errors import PassError
from fretsaw.passes.sparse.calibrate.choose import Table, cheapest, choose, choose_within
from fretsaw.passes.sparse.calibrate.plans import plan_toml
from fretsaw.passes.sparse.methods.lambda_mask import LambdaMask
from fretsaw.passes.sparse.methods.plan import Plan
from fretsaw.passes.sparse.methods.xattention import XAttention


def table(seed: int, layers: int = 2, heads: int = 2, ways: int = 3, missing: float = 0.2) -> Table:
    """Random candidates, some missing, and dense attention last."""
    rng = np.random.default_rng(seed)
    density = rng.random((layers, heads, ways + 1))
    density[rng.random(density.shape) < missing] = np.inf
    density[:, :, -1] = 1.0
    loss = rng.random(density.shape)
    loss[:, :, -1] = 0.0
    selection = rng.random((layers, ways + 1)) * 0.3
    selection[:, -1] = 0.0
    shared = (0, 0, *range(2, ways + 1)) if seed % 2 else ()  # the first two take from the same scores
    return Table(tuple(range(layers)), density, loss, selection, shared)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1.5))
def test_it_is_as_cheap_as_the_best_of_all_choices(seed: int, budget: float) -> None:
    found = table(seed)
    best = np.inf
    for flat in itertools.product(range(4), repeat=4):
        choice = np.array(flat).reshape(2, 2)
        if found.lost(choice) <= budget and np.isfinite(found.cost(choice)):
            best = min(best, found.cost(choice))
    got = choose(found, budget)
    assert found.lost(got) <= budget + 1e-6
    assert found.cost(got) == pytest.approx(best, rel=2e-3)  # the solver may stop 1e-3 from the best


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.3, 1.2), st.sampled_from([1.0, 1e-4, 1e-8]))
def test_within_a_cost_nothing_loses_less(seed: int, limit: float, scale: float) -> None:
    """Losses of real models are far below one: the solver's tolerances must not eat them."""
    found = table(seed)
    found = Table(found.layers, found.density, found.loss * scale, found.selection, found.scorer)
    best = np.inf
    for flat in itertools.product(range(4), repeat=4):
        choice = np.array(flat).reshape(2, 2)
        if found.cost(choice) <= limit:
            best = min(best, found.lost(choice))
    if np.isinf(best):
        assert cheapest(found) > limit
        with pytest.raises(PassError, match="no plan was found"):
            choose_within(found, limit)
        return
    got = choose_within(found, limit)
    assert found.cost(got) <= limit * (1 + 1e-3)
    # It may stop 1e-3 from the best; a choice that is over the limit by rounding alone may lose less.
    assert found.lost(got) <= best * (1 + 2e-3) + 1e-6 * scale


def test_the_cheapest_plan_is_the_cheapest() -> None:
    found = table(5)
    choices = (np.array(c).reshape(2, 2) for c in itertools.product(range(4), repeat=4))
    assert cheapest(found) == pytest.approx(min(found.cost(c) for c in choices), rel=1e-3)


def test_no_budget_is_dense_and_any_budget_is_the_cheapest() -> None:
    found = table(1)
    assert (choose(found, 0.0) == 3).all()
    got = choose(found, 100.0)
    assert found.cost(got) < 1 and np.isfinite(found.cost(got))


def test_a_selector_is_paid_once_for_a_layer() -> None:
    density = np.array([[[0.1, 0.5, 1.0], [0.1, 0.5, 1.0]]])
    found = Table((0,), density, np.zeros((1, 2, 3)), np.array([[0.6, 0.0, 0.0]]))
    assert found.cost(np.array([[0, 0]])) == pytest.approx(0.7)
    assert choose(found, 0.0).tolist() == [[1, 1]]  # 0.5 + 0 is less than 0.1 + 0.6
    cheaper = Table((0,), density, np.zeros((1, 2, 3)), np.array([[0.3, 0.0, 0.0]]))
    assert choose(cheaper, 0.0).tolist() == [[0, 0]]


def test_scores_are_paid_once_whatever_is_taken_from_them() -> None:
    density = np.array([[[0.1, 0.9, 1.0], [0.9, 0.1, 1.0]]])
    alone = Table((0,), density, np.zeros((1, 2, 3)), np.array([[0.6, 0.5, 0.0]]))
    assert alone.cost(np.array([[0, 1]])) == pytest.approx(1.2)
    together = Table((0,), density, np.zeros((1, 2, 3)), np.array([[0.6, 0.5, 0.0]]), (0, 0, 2))
    assert together.cost(np.array([[0, 1]])) == pytest.approx(0.7)
    assert choose(alone, 0.0).tolist() == [[1, 1]] or choose(alone, 0.0).tolist() == [[2, 2]]
    assert choose(together, 0.0).tolist() == [[0, 1]]


def test_plans_are_read_back(tmp_path: Path) -> None:
    spans, masses = LambdaMask(sink=64, window=256), XAttention(threshold=0.7, stride=16, dense_until=128)
    text = plan_toml({(0, 0): spans, (0, 2): spans, (0, 1): masses, (3, 1): masses}, ("found by a search",))
    path = tmp_path / "plan.toml"
    path.write_text(text)
    plan = Plan(plan=str(path))
    assert text.startswith("# found by a search\n") and plan.planned() == (0, 3)
    assert plan.parts(0, 3) == (((0, 2), spans), ((1,), masses))
    (dense, own) = plan.parts(3, 2)
    assert own == ((1,), masses) and dense[1].method == "dense"
