"""Routing, sorting, grouped GEMM and combination against NumPy, expert by expert; bit equality per token."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_run import Array, Built

from fretsaw.backends.tvm.kernels.epilogue import Epilogue, Glu
from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.backends.tvm.kernels.moe import (
    ExpertGemmSpec,
    RouteSpec,
    expert_gemm,
    moe_combine,
    moe_route,
    moe_scan,
)
from fretsaw.backends.tvm.kernels.pack import pack_glu_panels, pack_panels

E, K, D, F = 5, 2, 27, 19


def routed(spec: RouteSpec, logits: Array) -> tuple[Array, Array]:
    """The reference: stable sort, so that ties go to the lowest index."""
    z = logits.astype(np.float64)
    order = np.argsort(-z, axis=1, kind="stable")[:, : spec.top_k]
    softmax = np.exp(z - z.max(1, keepdims=True))
    softmax /= softmax.sum(1, keepdims=True)
    scores = 1 / (1 + np.exp(-z)) if spec.scoring == "sigmoid" else softmax
    w = np.take_along_axis(scores, order, 1)
    if spec.norm_topk or spec.scoring == "softmax_topk":
        w = w / w.sum(1, keepdims=True)
    return order, w * spec.scale


@pytest.mark.parametrize("scoring", ["softmax", "softmax_topk", "sigmoid"])
@pytest.mark.parametrize("norm", [False, True])
def test_route(scoring: str, norm: bool) -> None:
    spec = RouteSpec(E, K, scoring, norm, scale=1.5)
    run = Built(moe_route(spec))
    rng = np.random.default_rng(0)
    for t in (0, 1, 7, 200):
        logits = rng.integers(-3, 4, (t, E)).astype(np.float32)  # integers: many ties
        _, idx, w = run(logits, np.zeros((t, K), np.int32), np.zeros((t, K), np.float32))
        order, weights = routed(spec, logits)
        assert (idx == order).all()
        assert np.allclose(w, weights, rtol=1e-6, atol=0)


def experts(x: Array, idx: Array, w: Array, gate: Array, up: Array, down: Array) -> Array:
    """The reference in f64, one token and slot at a time."""
    out = np.zeros(x.shape)
    for t in range(len(x)):
        for s in range(idx.shape[1]):
            e = idx[t, s]
            g, u = gate[e].astype(np.float64) @ x[t], up[e].astype(np.float64) @ x[t]
            out[t] += w[t, s] * (down[e].astype(np.float64) @ (g / (1 + np.exp(-g)) * u))
    return out


def test_pipeline_and_invariance() -> None:
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    gate, up, down = normal(E, F, D), normal(E, F, D), normal(E, D, F)
    scan = Built(moe_scan(E, K))
    up_run = Built(expert_gemm(ExpertGemmSpec(E, F, D, K, V3, True, epilogue=Epilogue(glu=Glu()))))
    down_run = Built(expert_gemm(ExpertGemmSpec(E, D, F, K, V3, False)))
    combine = Built(moe_combine(D, K, V3))
    packed, packed_down = pack_glu_panels(gate, up), pack_panels(down)

    def run(x: Array, idx: Array, w: Array) -> Array:
        t = len(x)
        zeros = [np.zeros(s, np.int32) for s in ((E + 1,), (t * K,), (t, K))]
        _, offsets, order, place = scan(idx, *zeros)
        assert (np.diff(offsets) == np.bincount(idx.ravel(), minlength=E)).all()
        assert (order == np.argsort(idx.ravel(), kind="stable")).all()
        h = up_run(x, order, offsets, packed, np.zeros((t * K, F), np.float32))[-1]
        y = down_run(h, offsets, packed_down, np.zeros((t * K, D), np.float32))[-1]
        return combine(y, place, w, np.zeros((t, D), np.float32))[-1]

    t = 41
    x, w = normal(t, D), rng.random((t, K)).astype(np.float32)
    idx = np.stack([rng.permutation(E - 1)[:K] for _ in range(t)]).astype(np.int32)  # nobody chooses the last
    whole = run(x, idx, w)
    want = experts(x, idx, w, gate, up, down)
    assert np.abs(whole - want).max() < 1e-6 * np.abs(want).max() * (D + F)
    assert run(x[:0], idx[:0], w[:0]).shape == (0, D)
    for a, b in ((0, 1), (1, 8), (8, 41)):
        assert np.array_equal(run(x[a:b], idx[a:b], w[a:b]), whole[a:b])
