"""GEMM against f64 products, all epilogues, every tail; bit equality over T and thread counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fretsaw.backends.program.pack import convert, pack_glu_panels, pack_panels, unpack_panels, widen
from fretsaw.backends.tvm.kernels.epilogue import Epilogue, Glu
from fretsaw.backends.tvm.kernels.gemm import GemmSpec, gemm
from fretsaw.backends.tvm.kernels.isa import V3
from tests.backends.kernels.kernel_run import Array, Built, threads

TOKENS = [0, 1, 2, 3, 4, 5, 6, 7, 16, 33, 131]


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(got: Array, want: Array, width: int) -> bool:
    """Within the rounding of a chain of ``width`` products of normal values."""
    return got.shape == want.shape and bool((np.abs(got - want) <= 6e-8 * width**0.5 * 8 * (1 + np.abs(want))).all())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("n", "k"), [(64, 64), (37, 35), (1, 1), (200, 3), (112, 130)])
def test_product_and_invariance(n: int, k: int, dtype: str) -> None:
    w = normal(0, n, k)
    panels = pack_panels(w, dtype)
    assert np.array_equal(unpack_panels(panels, n), convert(w, dtype))
    exact = widen(convert(w, dtype), dtype).astype(np.float64)
    run = Built(gemm(GemmSpec(n, k, V3, dtype)))
    x = normal(1, 131, k)
    whole = run(x, panels, np.zeros((131, n), np.float32))[-1]
    assert close(whole, x @ exact.T, k)
    assert not close(whole * np.float32(1.0001), x @ exact.T, k)  # the tolerance can fail
    for count in (1, 2):
        with threads(count):
            for t in TOKENS:
                got = run(x[131 - t :], panels, np.zeros((t, n), np.float32))[-1]
                assert np.array_equal(got, whole[131 - t :]), (t, count)


def reference(e: Epilogue, y: Array, bias: Array, residual: Array) -> Array:
    y = y + bias if e.bias else y
    y = y * e.scale
    if e.soft_cap:
        y = e.soft_cap * np.tanh(y / e.soft_cap)
    if e.activation == "silu":
        y = y / (1 + np.exp(-y))
    if e.activation == "relu":
        y = np.maximum(y, 0)
    if e.activation == "gelu":
        y = y * 0.5 * np.vectorize(math.erfc, otypes=[np.float64])(-y / math.sqrt(2))
    if e.activation == "gelu_tanh":
        y = 0.5 * y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    return y + residual if e.residual != "none" else y


EPILOGUES = [
    Epilogue(bias=True, activation="silu"),
    Epilogue(activation="gelu", residual="add"),
    Epilogue(activation="gelu_tanh", residual="inplace"),
    Epilogue(bias=True, scale=0.25, soft_cap=3.0),
    Epilogue(activation="relu"),
]


@pytest.mark.parametrize("e", EPILOGUES, ids=[f"e{i}" for i in range(len(EPILOGUES))])
def test_epilogues(e: Epilogue) -> None:
    n, k = 37, 16
    w, bias = normal(0, n, k), normal(1, n)
    run = Built(gemm(GemmSpec(n, k, V3, epilogue=e)))
    for t in (0, 1, 5, 13):
        x, residual = normal(2, t, k), normal(3, t, n)
        out = residual.copy() if e.residual == "inplace" else np.zeros((t, n), np.float32)
        inputs = [x, pack_panels(w)] + [bias] * e.bias + [residual] * (e.residual == "add")
        got = run(*inputs, out)[-1]
        assert close(got, reference(e, x.astype(np.float64) @ w.T, bias, residual), k)


@pytest.mark.parametrize("glu", [Glu("silu"), Glu("gelu_tanh"), Glu(limit=1.5)], ids=["silu", "gelu", "clamped"])
@pytest.mark.parametrize("f", [24, 21])
def test_glu(glu: Glu, f: int) -> None:
    k = 18
    gate, up, gb, ub = normal(0, f, k), normal(1, f, k), normal(2, f), normal(3, f)
    run = Built(gemm(GemmSpec(f, k, V3, epilogue=Epilogue(bias=True, glu=glu))))
    for t in (0, 1, 7):
        x = normal(4, t, k)
        got = run(x, pack_glu_panels(gate, up), gb, ub, np.zeros((t, f), np.float32))[-1]
        g, u = x.astype(np.float64) @ gate.T + gb, x.astype(np.float64) @ up.T + ub
        if glu.limit is not None:
            g, u = np.minimum(g, glu.limit), np.clip(u, -glu.limit, glu.limit)
            want = (u + 1) * g / (1 + np.exp(-glu.alpha * g))
        else:
            want = reference(Epilogue(activation=glu.activation), g, gb, gb) * u
        assert (np.abs(got - want) <= 2e-6 * (1 + np.abs(want)) * 4).all()
