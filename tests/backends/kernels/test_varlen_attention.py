"""Packed attention against the op's reference in f64 over ragged batches, and bit equality over batches and threads."""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.backends.tvm.kernels.pool import l2_norm, segment_pool
from fretsaw.backends.tvm.kernels.rope import rope_angles
from fretsaw.backends.tvm.kernels.varlen_attention import VarlenSpec, varlen_attention
from fretsaw.ir import get_op
from tests.backends.kernels.kernel_run import Array, Built, threads

SPECS = {
    "minilm": VarlenSpec(12, 12, 32, V3, 32**-0.5),
    "window": VarlenSpec(4, 4, 12, V3, 0.3, window=5, rotary=12),
    "wide-window": VarlenSpec(2, 2, 64, V3, 0.125, window=65, rotary=64, separate=True),
    "grouped": VarlenSpec(8, 2, 20, V3, 0.2, value_dim=28, soft_cap=3.0, sinks=True, block=16),
    "causal": VarlenSpec(6, 2, 24, V3, 0.2, causal=True, window=37, rotary=8, layout="interleaved", block=32),
    "causal-full": VarlenSpec(3, 3, 64, V3, 0.125, causal=True),
    "one-group": VarlenSpec(14, 1, 144, V3, 0.1),
}
RAGGED = [(5,), (1, 1, 1), (64, 65, 63), (0, 200, 0, 1, 33), (0, 0), (97, 0, 2, 129)]


def make(spec: VarlenSpec, lengths: tuple[int, ...], seed: int = 0) -> list[Array]:
    """The arguments of the kernel but the output."""
    rng = np.random.default_rng([seed, *lengths])
    t, kv = sum(lengths), spec.kv_heads
    widths = (spec.heads * spec.head_dim, kv * spec.head_dim, kv * spec.values)
    parts = [rng.standard_normal((t, w)).astype(np.float32) for w in widths]
    args: list[Array] = parts if spec.separate else [np.concatenate(parts, axis=1)]
    if spec.rotary:
        positions = np.concatenate([np.arange(n) for n in lengths])
        angle = positions[:, None] * frequencies(spec)
        args += [np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)]
    args.append(np.cumsum([0, *lengths]).astype(np.int32))
    return [*args, rng.standard_normal(spec.heads).astype(np.float32)] if spec.sinks else args


def frequencies(spec: VarlenSpec) -> Array:
    return 100.0 ** (-np.arange(spec.rotary // 2) / max(1, spec.rotary // 2))


def reference(spec: VarlenSpec, lengths: tuple[int, ...], args: list[Array]) -> Array:
    """The ops rope and segment_attention in f64."""
    cut = np.cumsum([spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim])
    q, k, v = args[:3] if spec.separate else np.split(args[0], cut, axis=1)
    q, k, v = (x.astype(np.float64).reshape(len(x), n, x.shape[1] // n) for x, n in
               ((q, spec.heads), (k, spec.kv_heads), (v, spec.kv_heads)))  # fmt: skip
    if spec.rotary:
        positions = np.concatenate([np.arange(n) for n in lengths])
        attrs = {"layout": spec.layout, "scale": 1.0}
        q, k = (get_op("rope").reference([x, positions, frequencies(spec)], attrs)[0] for x in (q, k))
    attrs = {"causal": spec.causal, "window": spec.window, "scale": spec.scale, "softcap": spec.soft_cap}
    cu = np.cumsum([0, *lengths])
    sinks = [args[-1].astype(np.float64)] if spec.sinks else []
    out: Array = get_op("segment_attention").reference([q, k, v, cu, *sinks], attrs)[0]
    return out.reshape(len(out), spec.heads * spec.values)


def call(kernel: Built, spec: VarlenSpec, args: list[Array]) -> Array:
    out = np.full((len(args[0]), spec.heads * spec.values), np.nan, np.float32)
    return kernel(*args, out)[-1]


@pytest.mark.parametrize("name", SPECS)
def test_reference_and_invariance(name: str) -> None:
    spec = SPECS[name]
    kernel = Built(varlen_attention(spec))
    for lengths in RAGGED:
        args = make(spec, lengths)
        got = call(kernel, spec, args)
        want = reference(spec, lengths, args)
        # Chains of at most 200 fused multiply-adds, and angles rounded once.
        np.testing.assert_allclose(got, want, rtol=0, atol=300 * float(np.finfo(np.float32).eps))
        with threads(1):
            np.testing.assert_array_equal(call(kernel, spec, args), got)
        rows = args[: 3 if spec.separate else 1] + args[len(args) - 3 - spec.sinks : -1 - spec.sinks] * bool(
            spec.rotary
        )
        ends = np.cumsum([0, *lengths])
        for a, b in zip(ends, ends[1:], strict=False):
            alone = (
                [x[a:b] for x in rows] + [np.array([0, b - a], np.int32)] + args[len(args) - spec.sinks :] * spec.sinks
            )
            np.testing.assert_array_equal(call(kernel, spec, alone), got[a:b])


def test_the_comparison_can_fail() -> None:
    """A window one token wider is seen."""
    spec = SPECS["window"]
    args = make(spec, (64,))
    wider = VarlenSpec(4, 4, 12, V3, 0.3, window=6, rotary=12)
    got = call(Built(varlen_attention(wider)), spec, args)
    assert np.abs(got - reference(spec, (64,), args)).max() > 1e-2


def test_angles_are_those_of_the_positions() -> None:
    positions, freq = np.arange(7, dtype=np.int32), frequencies(SPECS["window"]).astype(np.float32)
    cos, sin = np.zeros((7, 6), np.float32), np.zeros((7, 6), np.float32)
    *_, cos, sin = Built(rope_angles(6))(positions, freq, cos, sin)
    np.testing.assert_allclose(cos + 1j * sin, np.exp(1j * positions[:, None] * freq), atol=1e-6)


@pytest.mark.parametrize("kind", ["first", "last", "mean", "max", "mean_sqrt"])
@pytest.mark.parametrize("width", [5, 16, 384])
def test_pooling(kind: str, width: int) -> None:
    kernel = Built(segment_pool(width, kind, V3))
    for lengths in RAGGED:
        x = np.random.default_rng(0).standard_normal((sum(lengths), width)).astype(np.float32)
        cu = np.cumsum([0, *lengths]).astype(np.int32)
        got = kernel(x, cu, np.full((len(lengths), width), np.nan, np.float32))[-1]
        want = get_op("segment_pool").reference([x.astype(np.float64), cu], {"kind": kind})[0]
        np.testing.assert_allclose(got, want, rtol=0, atol=200 * float(np.finfo(np.float32).eps))


@pytest.mark.parametrize("width", [5, 384])
def test_length_one(width: int) -> None:
    x = np.random.default_rng(0).standard_normal((4, width)).astype(np.float32)
    x[1], x[2] = 0, 1e-20
    got = Built(l2_norm(width, 1e-12, V3))(x, np.full_like(x, np.nan))[-1]
    want = get_op("l2_norm").reference([x.astype(np.float64)], {"eps": 1e-12})[0]
    np.testing.assert_allclose(got, want, rtol=4e-6, atol=0)
    assert (got[1] == 0).all()
