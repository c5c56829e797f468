"""Products over weights in integer codes against f64 products of what the codes mean: tails, groups, edges, bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.backends.program.codes import Codes, Grouped, Halves, decode, pack_codes, unpack_codes
from fretsaw.backends.program.pack import PANEL
from fretsaw.backends.tvm.kernels.epilogue import Epilogue, Glu
from fretsaw.backends.tvm.kernels.gemm import GemmSpec, gemm
from fretsaw.backends.tvm.kernels.isa import V3, V4, Isa
from tests.backends.kernels.kernel_run import Array, Built, assembly, runnable, threads

TOKENS = [0, 1, 2, 5, 6, 7, 8, 9, 16, 33, 61]
KINDS = [Grouped(4, 32), Grouped(4, 128), Grouped(8, 32), Grouped(3, 32), Grouped(2, 32), Grouped(1, 64), Grouped(4, 8)]
ISAS = [pytest.param(isa, id=isa.name) for isa in runnable()]


def weights(seed: int, n: int, k: int, how: Grouped) -> tuple[Codes, Halves, Halves]:
    rng = np.random.default_rng(seed)
    terms = rng.standard_normal((2, n, k // how.group)).astype(np.float16)
    return rng.integers(0, 2**how.bits, (n, k), dtype=np.uint8), terms[0], terms[1]


def rows(seed: int, t: int, k: int) -> Array:
    return np.random.default_rng(seed).standard_normal((t, k)).astype(np.float32)


def close(got: Array, x: Array, w: Array) -> bool:
    """Within the rounding of a chain of K products: eps/2 for each link, of the sum of their magnitudes."""
    bound = np.finfo(np.float32).eps / 2 * x.shape[-1] * (np.abs(x) @ np.abs(w).T)
    return bool((np.abs(got - x.astype(np.float64) @ w.T.astype(np.float64)) <= bound).all())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("how", "n"), [*((how, 37) for how in KINDS), (KINDS[0], 1), (KINDS[0], 112)], ids=str)
def test_product_and_invariance(n: int, how: Grouped, isa: Isa) -> None:
    k = 3 * how.group
    planes = weights(n, n, k, how)
    packed, meant = pack_codes(*planes, how), decode(*planes, how.group)
    run = Built(gemm(GemmSpec(n, k, isa, how)), isa)
    x = rows(1, 61, k)
    whole = run(x, packed, np.zeros((61, n), np.float32))[-1]
    assert close(whole, x, meant)
    assert not close(whole + np.abs(whole).max() * np.float32(1e-3), x, meant)  # the bound can fail
    for count in (1, 2):
        with threads(count):
            for t in TOKENS:
                got = run(x[61 - t :], packed, np.zeros((t, n), np.float32))[-1]
                assert np.array_equal(got, whole[61 - t :]), (t, count)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("how", KINDS, ids=lambda h: f"u{h.bits}_g{h.group}")
def test_each_code_is_decoded_exactly(how: Grouped, isa: Isa) -> None:
    """A row of x with a single one reads a weight as it is: all codes, the greatest and least scales and minima."""
    n, k = 32, how.group
    codes, scales, minima = weights(2, n, k, how)
    codes[:4] = 2**how.bits - 1
    scales[:4] = np.array([[65504], [6e-8], [-65504], [0]])
    minima[:4] = np.array([[1], [0], [-65504], [0]])
    codes[4] = 0
    run = Built(gemm(GemmSpec(n, k, isa, how)), isa)
    got = run(np.eye(k, dtype=np.float32), pack_codes(codes, scales, minima, how), np.zeros((k, n), np.float32))[-1]
    assert np.array_equal(got, decode(codes, scales, minima, how.group).T)


@pytest.mark.parametrize("isa", ISAS)
def test_gated_panels_bias_and_residual(isa: Isa) -> None:
    """Rows of gate and up, eight and eight: what `pack_glu_panels` does to plain weights, in rows of codes."""
    how, f, k = Grouped(4, 32), 24, 64
    codes, scales, minima = weights(3, 2 * f, k, how)
    gate, up = (decode(codes[i::2], scales[i::2], minima[i::2], 32) for i in (0, 1))
    order = np.arange(2 * f).reshape(-1, 8, 2).swapaxes(1, 2).reshape(-1)
    packed = pack_codes(codes[order], scales[order], minima[order], how)
    bias, x = rows(4, 2, f), rows(5, 13, k)
    e = Epilogue(bias=True, glu=Glu("silu"), residual="add")
    run = Built(gemm(GemmSpec(f, k, isa, how, e)), isa)
    for t in (0, 1, 13):
        residual = rows(6, t, f)
        got = run(x[:t], packed, bias[0], bias[1], residual, np.zeros((t, f), np.float32))[-1]
        g, u = x[:t].astype(np.float64) @ gate.T + bias[0], x[:t].astype(np.float64) @ up.T + bias[1]
        want = g / (1 + np.exp(-g)) * u + residual
        assert (np.abs(got - want) <= 2e-6 * (1 + np.abs(g)) * (1 + np.abs(u)) * 4).all()


@given(
    n=st.integers(1, 40), groups=st.integers(1, 3), bits=st.sampled_from([1, 2, 3, 4, 8]), words=st.integers(1, 5),
    lead=st.lists(st.integers(1, 3), max_size=1), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_packing_loses_nothing(n: int, groups: int, bits: int, words: int, lead: list[int], seed: int) -> None:
    how = Grouped(bits, words * {1: 32, 2: 16, 3: 32, 4: 8, 8: 4}[bits])
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, (*lead, n, groups * how.group), dtype=np.uint8)
    halves = rng.integers(0, 2**16, (2, *lead, n, groups), dtype=np.uint16).view(np.float16)  # NaN and infinity too
    packed = pack_codes(codes, halves[0], halves[1], how)
    assert packed.shape == (*lead, *how.shape(-(-n // PANEL), groups * how.group)) and packed.dtype == np.int32
    got = unpack_codes(packed, n, how)
    assert np.array_equal(got[0], codes)
    assert all(np.array_equal(a.view(np.uint16), b.view(np.uint16)) for a, b in zip(got[1:], halves, strict=True))


def test_what_has_no_packing_is_refused() -> None:
    for bits, group in ((5, 32), (4, 12), (4, 0), (3, 16), (16, 32)):
        with pytest.raises(ValueError, match=f"codes of {bits} bits in groups of {group} have no packing"):
            Grouped(bits, group)
    with pytest.raises(ValueError, match="100 input features are no multiple of groups of 32"):
        GemmSpec(16, 100, V3, Grouped(4, 32)) and gemm(GemmSpec(16, 100, V3, Grouped(4, 32)))


def test_the_code_is_vectors() -> None:
    """A decoded code costs a shift, a mask, a conversion and a multiply-add of whole registers."""
    for isa, register in ((V3, "ymm"), (V4, "zmm")):
        code = assembly(gemm(GemmSpec(64, 64, isa, Grouped(4, 32))), isa)
        converts = [line for line in code.splitlines() if "vcvtdq2ps" in line]
        assert converts and all(register in line for line in converts)
        assert "vpgather" not in code and "vcvtsi2ss" not in code
