"""Storage of keys and values: the NumPy reference's bounds, and that kernels write its bytes and read what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.backends.tvm.kernels.attention import AttentionSpec, attention
from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.backends.tvm.kernels.rope import RopeSpec, rope_append
from fretsaw.backends.tvm.kv_storage import (
    Array,
    KvType,
    page_shapes,
    read_rows,
    row_bytes,
    store_rows,
)
from fretsaw.ir.formats import F16_MAX, SMALLEST, quantize
from tests.backends.kernels.kernel_run import Built, assembly

E, EV, P, HEADS = 20, 12, 16, 2
TYPES: tuple[KvType, ...] = ("f32", "f16", "int8")


@given(st.integers(0, 999), st.integers(-40, 40), st.booleans())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_reference_bounds(seed: int, exponent: int, transpose: bool) -> None:
    """f32 keeps every bit, f16 half a unit in its last place, int8 half a scale; both ways through a page."""
    x = np.ldexp(np.random.default_rng(seed).standard_normal((P, E)), exponent).astype(np.float32)
    assert np.array_equal(read_rows(store_rows(x, "f32", transpose=transpose), E, P, "f32", transpose=transpose), x)
    half = read_rows(store_rows(x, "f16", transpose=transpose), E, P, "f16", transpose=transpose)
    clipped = np.clip(x, -F16_MAX, F16_MAX)
    assert (np.abs(half - clipped) <= np.maximum(np.abs(clipped) * 2.0**-11, 2.0**-25)).all()
    _, scale = quantize(x)
    byte = read_rows(store_rows(x, "int8", transpose=transpose), E, P, "int8", transpose=transpose)
    assert (np.abs(byte - x) <= 0.5001 * scale[:, None]).all()


def test_sizes() -> None:
    assert [row_bytes(64, kv) for kv in TYPES] == [256, 128, 68]
    assert page_shapes(64, 32, 16, "f16") == ((64, 16), (16, 32))
    assert page_shapes(64, 32, 16, "int8") == ((16 * 68,), (16 * 36,))


def append(kv: KvType, key: Array, value: Array, lens: Array, cu: Array, pools: list[Array]) -> list[Array]:
    """Append without rotation: what goes in is then known to the bit."""
    t, b = len(key), lens.shape[1]
    table = np.arange(b * HEADS * 4, dtype=np.int32).reshape(1, b, HEADS, 4)[..., ::-1].copy()
    spec = RopeSpec(2, E, V3, HEADS, EV, 0, page=P, separate=True, kv=kv)
    none, q = np.zeros((t, 0), np.float32), np.zeros((t, 2 * E), np.float32)
    made = Built(rope_append(spec))(
        q, key.reshape(t, -1), value.reshape(t, -1), none, none, table, lens, cu, *pools,
        np.zeros((t, 2, E), np.float32), scalars=(0,),
    )  # fmt: skip
    return made[-3:-1]


@pytest.mark.parametrize("kv", TYPES)
def test_append_writes_the_bytes_of_the_reference_and_no_others(kv: KvType) -> None:
    """Ordinary numbers, zeros, too small for a scale, too large for f16, ties; in one step and in two."""
    rng = np.random.default_rng(3)
    cu, lens = np.array([0, 20, 20, 27], np.int32), np.array([[[3, 0], [0, 0], [30, 31]]], np.int32)
    key, value = (rng.standard_normal((27, HEADS, n)).astype(np.float32) for n in (E, EV))
    for x in (key, value):
        x[0], x[1], x[2, :, 0], x[3] = 0, SMALLEST / 2, 1e5, np.arange(x.shape[2]) - 3.5
        x[3, :, -1] = 127
        x[4] = -0.0
    held = [rng.standard_normal((24, P, n)).astype(np.float32) for n in (E, EV)]
    before = [np.stack([store_rows(p, kv, transpose=i == 0) for p in pool]) for i, pool in enumerate(held)]
    got = append(kv, key, value, lens, cu, before)
    for s in range(3):
        for token in range(cu[s], cu[s + 1]):
            for head in range(HEADS):
                slot = lens[0, s, head] + token - cu[s]
                page = (s * HEADS + head) * 4 + 3 - slot // P
                held[0][page, slot % P], held[1][page, slot % P] = key[token, head], value[token, head]
    for i, (pool, size) in enumerate(zip(held, (E, EV), strict=True)):
        want = np.stack([store_rows(p, kv, transpose=i == 0) for p in pool])
        assert want.shape[1:] == page_shapes(E, EV, P, kv)[i] and want[0].nbytes == P * row_bytes(size, kv)
        np.testing.assert_array_equal(got[i].view(np.uint8), want.view(np.uint8))
    first = append(kv, key[:9], value[:9], lens[:, :1], np.array([0, 9], np.int32), before)
    both = append(kv, key[9:20], value[9:20], lens[:, :1] + 9, np.array([0, 11], np.int32), first)
    for one, two in zip(got, both, strict=True):
        np.testing.assert_array_equal(one[: HEADS * 4], two[: HEADS * 4])


@pytest.mark.parametrize(("kv", "instruction"), [("f16", "vcvtph2ps"), ("int8", "vpmovsxbd")])
def test_narrow_pages_are_widened_by_the_hardware(kv: KvType, instruction: str) -> None:
    spec = AttentionSpec(3, 1, 64, V3, kv=kv)
    text = assembly(attention(spec), V3)
    assert text.count(instruction) > 8
    assert "callq\t__extendhfsf2" not in text
