"""Vector functions against f64, in units of the last place, and their exact values at the ends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.special
from tvm import tirx

from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import Expr, dim, kernel, load, loop, store
from tests.backends.kernels.kernel_run import Array, Built

LANES = 8
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-38, -1e-38, 3e38, -3e38], np.float32)


def mapped(function: Callable[[Expr], Expr]) -> Callable[[Array], Array]:
    """``function`` compiled over a vector of any length that is a multiple of eight."""
    with kernel("mapped") as k:
        n = dim("N")
        x, y = k.arg("x", (n,)), k.arg("y", (n,))
        with loop(tirx.floordiv(n, LANES)) as i:
            store(y, [i * LANES], function(load(x, [i * LANES], LANES)))
    run = Built(k.func)

    def call(values: Array) -> Array:
        padded = np.pad(values, (0, -len(values) % LANES))
        return run(padded, np.zeros_like(padded))[1][: len(values)]

    return call


def ulps(got: Array, want: Array) -> float:
    """Largest error in units of the last place of the exact result."""
    return float((np.abs(got - want) / np.spacing(np.abs(want).astype(np.float32))).max())


def silu(x: Array) -> Array:
    return x * scipy.special.expit(x)


def gelu(x: Array) -> Array:
    return x * scipy.special.ndtr(x)


def gelu_tanh(x: Array) -> Array:
    return x * scipy.special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


@pytest.mark.parametrize(
    ("function", "exact", "low", "high", "bound"),
    [
        (math.exp, np.exp, -87.0, 88.7, 2),
        (math.exp_nonpositive, np.exp, -87.0, 0.0, 2),
        (math.exp2_nonpositive, np.exp2, -125.9, 0.0, 2.5),
        (math.tanh, np.tanh, -20.0, 20.0, 4),
        (math.sigmoid, scipy.special.expit, -80.0, 80.0, 4),
        (math.silu, silu, -60.0, 60.0, 4),
        (math.rsqrt, lambda x: 1 / np.sqrt(x), 1e-3, 1e6, 2),
    ],
)
def test_error_in_ulps(
    function: Callable[[Expr], Expr], exact: Callable[[Array], Array], low: float, high: float, bound: float
) -> None:
    run = mapped(function)
    rng = np.random.default_rng(0)
    x = np.concatenate([np.linspace(low, high, 200_000), rng.uniform(max(low, -1), min(high, 1), 50_000)])
    x = x.astype(np.float32)
    got, want = run(x), exact(x.astype(np.float64))
    assert ulps(got, want) <= bound
    assert ulps(got * np.float32(1 + 2e-6), want) > bound, "the bound would not notice an error of 2e-6"


@pytest.mark.parametrize(("function", "exact"), [(math.gelu_erf, gelu), (math.gelu_tanh, gelu_tanh)])
def test_gelu(function: Callable[[Expr], Expr], exact: Callable[[Array], Array]) -> None:
    x = np.linspace(-30, 30, 400_001).astype(np.float32)
    wide = x.astype(np.float64)
    error = np.abs(mapped(function)(x) - exact(wide)) / np.maximum(1, np.abs(wide))
    assert error.max() <= 3e-7


def test_erfc() -> None:
    z = np.linspace(0, 8.2, 200_001).astype(np.float32)
    want = scipy.special.erfc(z.astype(np.float64))
    assert (np.abs(mapped(math.erfc_nonnegative)(z) - want) / want).max() <= 1e-5


def test_soft_cap() -> None:
    x = np.linspace(-300, 300, 100_001).astype(np.float32)
    want = 3 * 50 * np.tanh(x.astype(np.float64) / 50)
    got = mapped(lambda v: math.soft_cap(v, 50.0, 3.0))(x)
    assert np.abs(got - want).max() <= 150 * 4 * np.finfo(np.float32).eps


def test_values_at_the_ends() -> None:
    inf, nan = np.inf, np.nan
    expected = {
        math.exp: ([1, 1, inf, 0, nan, 1, 1, inf, 0], SPECIAL),
        math.exp_nonpositive: ([1, 1, 0, nan], SPECIAL[[0, 1, 3, 4]]),
        math.exp2_nonpositive: ([1, 1, 0, nan, 0], np.append(SPECIAL[[0, 1, 3, 4]], np.float32(-1e30))),
        math.tanh: ([0, -0.0, 1, -1, nan], SPECIAL[:5]),
        math.sigmoid: ([0.5, 0.5, 1, 0, nan], SPECIAL[:5]),
    }
    for function, (want, x) in expected.items():
        assert np.array_equal(mapped(function)(x.astype(np.float32)), np.array(want, np.float32), equal_nan=True), (
            function
        )


def test_exp2_vanishes_below_the_normal_numbers() -> None:
    got = mapped(math.exp2_nonpositive)(np.linspace(-200, -126, 10_000).astype(np.float32))
    assert (got >= 0).all() and got.max() <= 2.0**-125.5
