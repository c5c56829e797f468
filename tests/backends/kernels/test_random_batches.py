"""Properties over generated batches: attention, its merge of chunks, GEMM, norms and rope of any ragged shape."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.backends.program.pack import pack_panels
from fretsaw.backends.program.specs.layers import NormSpec
from fretsaw.backends.tvm.kernels.attention import AttentionSpec, attention
from fretsaw.backends.tvm.kernels.gemm import GemmSpec, gemm
from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.backends.tvm.kernels.norm import norm
from fretsaw.backends.tvm.kernels.rope import RopeSpec, rope
from tests.backends.kernels.kernel_run import Array, Built
from tests.backends.kernels.paged import LAYER, make
from tests.backends.kernels.test_attention import reference, run
from tests.backends.kernels.test_gemm import close
from tests.backends.kernels.test_rows import turn

SPECS = (
    AttentionSpec(4, 2, 16, V3, page=16, segment=2),
    AttentionSpec(3, 3, 8, V3, page=16, segment=2, window=11),
    AttentionSpec(4, 2, 16, V3, page=16, segment=2, kv="f16"),
    AttentionSpec(3, 3, 8, V3, page=16, segment=2, window=11, kv="f16", lse=True),
    AttentionSpec(4, 2, 16, V3, page=16, segment=2, kv="int8", lse=True),
    AttentionSpec(3, 3, 20, V3, page=16, segment=2, window=11, kv="int8"),
)
few = settings(max_examples=25, deadline=None, derandomize=True)
sequences = st.lists(st.tuples(st.integers(0, 70), st.integers(0, 40)), min_size=1, max_size=5)


@cache
def built(spec: AttentionSpec) -> Built:
    return Built(attention(spec))


def attend(spec: AttentionSpec, args: list[Array]) -> tuple[Array, Array]:
    return run(spec, built(spec), args)


@given(st.sampled_from(SPECS), sequences)
@few
def test_attention_of_any_ragged_batch(spec: AttentionSpec, batch: list[tuple[int, int]]) -> None:
    """Equal to an f64 softmax of what is stored, and every sequence gets the bits that it gets alone."""
    args = make(spec, [[n] * spec.kv_heads for n, _ in batch], [c for _, c in batch])
    got, lse = attend(spec, args)
    want, want_lse = reference(spec, args, None)
    assert np.abs(got - want).max(initial=0) < 4e-6
    assert not spec.lse or np.abs(lse - want_lse).max(initial=0) < 4e-6
    q, k, v, table, lens, cu = args
    for b in range(len(batch)):
        rows = slice(cu[b], cu[b + 1])
        one = [q[rows], k, v, table[:, b : b + 1], lens[:, b : b + 1], np.array([0, cu[b + 1] - cu[b]], np.int32)]
        assert np.array_equal(attend(spec, one)[0], got[rows]), b


@given(st.sampled_from(SPECS), st.integers(1, 60), st.lists(st.integers(1, 59), max_size=4))
@few
def test_attention_of_any_chunking(spec: AttentionSpec, length: int, cuts: list[int]) -> None:
    q, k, v, table, lens, cu = make(spec, [[0] * spec.kv_heads], [length])
    whole, _ = attend(spec, [q, k, v, table, lens, cu])
    edges = sorted({0, length, *(c for c in cuts if c < length)})
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        lens[LAYER] = a
        part, _ = attend(spec, [q[a:b], k, v, table, lens, np.array([0, b - a], np.int32)])
        assert np.array_equal(part, whole[a:b]), (a, b)


@cache
def gemm_of(n: int, k: int) -> Built:
    return Built(gemm(GemmSpec(n, k, V3)))


@given(st.sampled_from([(37, 21), (16, 8)]), st.integers(0, 90), st.integers(-30, 30), st.integers(0, 99))
@few
def test_gemm_of_any_rows_and_magnitudes(shape: tuple[int, int], rows: int, exponent: int, seed: int) -> None:
    n, k = shape
    rng = np.random.default_rng(seed)
    w, x = (rng.standard_normal(s).astype(np.float32) for s in ((n, k), (rows, k)))
    scaled = np.ldexp(x, exponent).astype(np.float32)  # a power of two: products scale exactly
    got = gemm_of(n, k)(scaled, pack_panels(w), np.zeros((rows, n), np.float32))[-1]
    assert close(np.ldexp(got, -exponent), x.astype(np.float64) @ w.T, k)


@cache
def norm_of(width: int) -> Built:
    return Built(norm(NormSpec(width, 1e-6), V3))


@given(st.sampled_from([5, 64]), st.integers(0, 40), st.integers(-12, 12), st.integers(0, 99))
@few
def test_rms_norm_of_any_magnitude(width: int, rows: int, exponent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.ldexp(rng.standard_normal((rows, width)), exponent).astype(np.float32)
    gain = rng.standard_normal(width).astype(np.float32)
    wide = x.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-6) * gain
    got = norm_of(width)(x, gain, np.zeros_like(x))[-1]
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-12)


@cache
def rope_of(layout: str) -> Built:
    return Built(rope(RopeSpec(3, 16, V3, rotary=12, layout=layout)))


@given(st.sampled_from(["half", "interleaved"]), st.integers(0, 20), st.integers(0, 99))
@few
def test_rope_keeps_lengths_and_equals_the_rotation(layout: str, tokens: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, 3, 16)).astype(np.float32)
    angle = rng.uniform(-40, 40, (tokens, 6))
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    got = rope_of(layout)(x, cos, sin, np.zeros_like(x))[-1]
    np.testing.assert_allclose(got, turn(x, cos, sin, layout, 12), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose((got**2).sum(-1), (x**2).sum(-1), rtol=1e-5)
