"""Norms, embedding, elementwise and rope (with the append to the cache) against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.backends.program.expr import leaf
from fretsaw.backends.program.pack import WIDE, convert, pack_panels, widen
from fretsaw.backends.program.specs.layers import ElementwiseSpec, EmbeddingSpec, NormSpec
from fretsaw.backends.tvm.kernels.embedding import embedding
from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.backends.tvm.kernels.norm import norm
from fretsaw.backends.tvm.kernels.rope import RopeSpec, rope_angles, rope_append
from fretsaw.backends.tvm.registry import build_kernel
from tests.backends.kernels.kernel_run import Array, Built

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("width", [5, 37, 64, 576])
def test_norms(width: int) -> None:
    rms = Built(norm(NormSpec(width, 1e-5), V3))
    layer = Built(norm(NormSpec(width, 1e-5, "layer", bias=True), V3))
    for t in (0, 1, 9, 33):
        x, g, b, z = normal(t, width), normal(width), normal(width), normal(t, width)
        wide = x.astype(np.float64)
        want = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5) * g
        assert np.allclose(rms(x, g, z)[-1], want, rtol=1e-6, atol=1e-7)
        want = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5) * g + b
        assert np.allclose(layer(x, g, b, z)[-1], want, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("weight", WIDE)
@pytest.mark.parametrize("packed", [True, False])
def test_embedding(weight: str, packed: bool) -> None:
    dtype = WIDE[weight]
    table, ids = normal(37, 21), np.array([0, 36, 15, 16, 3], np.int32)
    stored = pack_panels(table, dtype) if packed else convert(table, dtype)
    run = Built(embedding(EmbeddingSpec(37, 21, weight, 2.0, packed), V3))
    assert np.array_equal(run(ids, stored, normal(5, 21))[-1], 2 * widen(convert(table, dtype), dtype)[ids])


def test_elementwise() -> None:
    tree = ("add", ("mul", leaf(0), leaf(1)), ("neg", leaf(2)))
    run = Built(build_kernel(ElementwiseSpec(21, tree, ("full", "row", "col")), V3))
    for t in (0, 1, 17):
        a, b, c, z = normal(t, 21), normal(t, 1), normal(21), normal(t, 21)
        assert np.allclose(run(a, b, c, z)[-1], a * b - c, rtol=1e-6, atol=1e-6)


def turn(x: Array, cos: Array, sin: Array, layout: str, rotary: int) -> Array:
    y, h = x.copy(), rotary // 2
    first = slice(0, h) if layout == "half" else slice(0, rotary, 2)
    second = slice(h, rotary) if layout == "half" else slice(1, rotary, 2)
    a, b, c, s = x[..., first], x[..., second], cos[:, None], sin[:, None]
    y[..., first], y[..., second] = a * c - b * s, b * c + a * s
    return y


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize(
    ("h", "kv", "e", "ev", "rotary", "normed", "separate"),
    [(9, 3, 64, 64, 64, False, False), (4, 2, 24, 16, 8, True, True), (3, 1, 16, 16, 16, True, False)],
)
def test_rope_append(layout: str, h: int, kv: int, e: int, ev: int, rotary: int, normed: bool, separate: bool) -> None:
    cu = np.array([0, 5, 5, 18, 19], np.int32)
    t, b, layers, p, most = 19, 4, 2, 8, 6
    table = RNG.permutation(layers * b * kv * most).reshape(layers, b, kv, most).astype(np.int32)
    lens = RNG.integers(0, 20, (layers, b, kv)).astype(np.int32)
    positions = RNG.integers(0, 4000, t).astype(np.int32)
    inv = (1e4 ** -(np.arange(rotary // 2) * 2 / rotary)).astype(np.float32)
    empty = np.zeros((t, rotary // 2), np.float32)
    cos, sin = Built(rope_angles(rotary // 2))(positions, inv, empty, empty)[2:]
    angle = positions[:, None].astype(np.float32) * inv
    assert np.abs(cos - np.cos(angle)).max() < 2e-7 and np.abs(sin - np.sin(angle)).max() < 2e-7

    q, k, v, qg, kg = normal(t, h * e), normal(t, kv * e), normal(t, kv * ev), normal(e), normal(e)
    spec = RopeSpec(h, e, V3, kv, ev, rotary, layout, p, normed, normed, 1e-6, separate)
    keys, values = normal(table.size, e, p), normal(table.size, p, ev)
    inputs = [q, k, v] if separate else [np.concatenate([q, k, v], 1)]
    gains = [qg, kg] if normed else []
    out = np.zeros((t, h, e), np.float32)
    got = Built(rope_append(spec))(*inputs, cos, sin, *gains, table, lens, cu, keys, values, out, scalars=(1,))
    q3, k3, v3 = q.reshape(t, h, e), k.reshape(t, kv, e), v.reshape(t, kv, ev)
    if normed:
        q3 = q3 / np.sqrt((q3**2).mean(-1, keepdims=True) + 1e-6) * qg
        k3 = k3 / np.sqrt((k3**2).mean(-1, keepdims=True) + 1e-6) * kg
    q3, k3 = turn(q3, cos, sin, layout, rotary), turn(k3, cos, sin, layout, rotary)
    for s in range(b):
        for i in range(cu[s], cu[s + 1]):
            for head in range(kv):
                slot = lens[1, s, head] + i - cu[s]
                page = table[1, s, head, slot // p]
                keys[page, :, slot % p], values[page, slot % p] = k3[i, head], v3[i, head]
    assert np.allclose(got[-1], q3, rtol=1e-5, atol=2e-6)
    assert np.allclose(got[-3], keys, rtol=1e-5, atol=2e-6)
    assert np.array_equal(got[-2], values)
