"""GPTQ: where it must equal plain rounding, that it lowers the error of products, and its degenerate inputs."""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.passes.quantize import gptq as module
from fretsaw.passes.quantize.gptq import NotPositive, Rounded, gptq, inverse_factor, loss
from fretsaw.passes.quantize.grid import Floats, search

N, K, GROUP = 24, 96, 16


def problem(seed: int, tokens: int = 400) -> tuple[Floats, Floats]:
    """Weights, and X^T X of inputs that depend on each other."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, K)) @ (np.eye(K) + 0.3 * rng.standard_normal((K, K)))
    return rng.standard_normal((N, K)).astype(np.float32), (x.T @ x).astype(np.float32)


def values(rounded: Rounded) -> Floats:
    return rounded.grid.values(rounded.codes.reshape(len(rounded.codes), -1, GROUP)).reshape(rounded.codes.shape)


def nearest(w: Floats, bits: int) -> Floats:
    groups = w.reshape(len(w), -1, GROUP)
    grid = search(groups, bits)
    return grid.values(grid.codes(groups, bits)).reshape(w.shape)


def test_the_factor_is_that_of_the_inverse() -> None:
    _, h = problem(0)
    wide = h.astype(np.float64)
    upper = inverse_factor(wide, 0.01)
    damped = wide + 0.01 * np.diag(wide).mean() * np.eye(K)
    assert np.allclose(upper, np.triu(upper)) and np.allclose(upper.T @ upper @ damped, np.eye(K), atol=1e-8)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("bits", [2, 4])
def test_a_diagonal_hessian_gives_plain_rounding(bits: int, act_order: bool) -> None:
    w, h = problem(1)
    diagonal = np.diag(np.diag(h)).astype(np.float32)
    assert np.array_equal(values(gptq(w, diagonal, bits, GROUP, act_order=act_order)), nearest(w, bits))
    assert np.array_equal(values(gptq(w, h, bits, GROUP, damp=1e9, act_order=act_order)), nearest(w, bits))
    assert not np.array_equal(values(gptq(w, h, bits, GROUP, act_order=act_order)), nearest(w, bits))


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(("bits", "share"), [(2, 0.8), (3, 0.75), (4, 0.75)])
def test_products_lose_less(bits: int, share: float, act_order: bool) -> None:
    pairs = []
    for seed in range(6):
        w, h = problem(seed)
        mine = loss(w, values(gptq(w, h, bits, GROUP, act_order=act_order)), h)
        pairs.append(mine / loss(w, nearest(w, bits), h))
    assert np.mean(pairs) < share, pairs


def test_the_loss_is_the_error_of_products() -> None:
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((50, K)), rng.standard_normal((N, K)).astype(np.float32)
    rounded = nearest(w, 3)
    want = float((((w - rounded).astype(np.float64) @ x.T) ** 2).sum())
    assert abs(loss(w, rounded, (x.T @ x).astype(np.float32)) - want) < 1e-4 * want


def test_rows_do_not_depend_on_each_other() -> None:
    w, h = problem(4)
    whole, part = gptq(w, h, 3, GROUP), gptq(w[5:9], h, 3, GROUP)
    assert np.array_equal(whole.codes[5:9], part.codes) and np.array_equal(whole.grid.scales[5:9], part.grid.scales)


@pytest.mark.parametrize("block", [1, 8, 40, K])
def test_the_block_does_not_matter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    w, h = problem(5)
    before = gptq(w, h, 3, GROUP)
    monkeypatch.setattr(module, "BLOCK", block)
    after = gptq(w, h, 3, GROUP)
    assert (before.codes != after.codes).mean() < 0.01  # rounding of sums in f32 may turn a code that lies between two
    assert loss(w, values(after), h) < 1.02 * loss(w, values(before), h)


def test_an_input_that_is_always_zero_has_no_weight() -> None:
    w, h = problem(6)
    h[[3, 40], :] = h[:, [3, 40]] = 0
    rounded = values(gptq(w, h, 4, GROUP))
    others = np.abs(rounded[:, [2, 41]]).mean()
    assert np.abs(rounded[:, [3, 40]]).max() < 0.5 * others + 0.2  # as near to zero as the grid of its group has it
    assert np.isfinite(rounded).all()


def test_inputs_that_no_damping_helps() -> None:
    w, h = problem(7)
    with pytest.raises(NotPositive, match="not positive definite at damp=0"):
        gptq(w, h - 2 * np.diag(np.diag(h)) + np.eye(K, dtype=np.float32) * 1e-3, 4, GROUP, damp=0)
    singular = np.ones((K, K), np.float32)
    assert np.isfinite(values(gptq(w, singular, 4, GROUP))).all()  # damped it is definite


def test_equal_weights_stay() -> None:
    _, h = problem(8)
    w = np.full((N, K), 0.25, np.float32)
    assert np.array_equal(values(gptq(w, h, 2, GROUP)), w)
