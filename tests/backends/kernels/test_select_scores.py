"""Compiled scores of blocks against the ops' references in f64, on every storage of the cache.

Bounds: a sum of n products of numbers near 1 in f32 is off by at most about n * eps of their size, an exponential of it
by as much again, relatively; a mass is at most the number of rows that it sums over.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.backends.tvm.kernels.select_antidiagonal import AntidiagonalSpec, antidiagonal
from fretsaw.backends.tvm.kernels.select_bounds import BoundSpec, bound_scores
from fretsaw.backends.tvm.kernels.select_dots import DotSpec, block_scores, pool_heads, softmax_blocks
from fretsaw.backends.tvm.kernels.select_halving import HalvingSpec, halving
from fretsaw.backends.tvm.kernels.select_lines import LineSpec, line_scores
from fretsaw.backends.tvm.kernels.select_pools import PoolSpec, pool_keys, pool_queries
from fretsaw.backends.tvm.kernels.select_windows import WindowSpec, compressed_scores
from tests.backends.kernels.kernel_run import Array, Built, threads
from tests.backends.kernels.select_case import LAYER, MIXED, Case, make

EPS = float(np.finfo(np.float32).eps)
STORES: list[KvType] = ["f32", "f16", "int8"]


def close(got: Array, want: Array, bound: float) -> None:
    """Equal where infinite, else within ``bound``."""
    assert np.array_equal(np.isneginf(got), np.isneginf(want))
    there = np.isfinite(want)
    assert np.abs(got[there] - want[there]).max(initial=0) <= bound


def on_keys(kernel: Built, case: Case, *operands: Array, out: list[Array]) -> list[Array]:
    """Run a kernel that reads the cache: pages, table, lens, cu, operands, layer, results."""
    k, _, table, lens, cu = case.paged
    made = kernel(k, table, lens, cu, *operands, *out, scalars=(LAYER,), results=len(out))
    return made[-len(out) :]


def scores_like(case: Case, heads: int) -> Array:
    return np.full((case.rows, heads, case.width), 7, np.float32)


@pytest.mark.parametrize("kv", STORES)
@pytest.mark.parametrize("kind", ["mean", "max", "min"])
def test_pools(kind: str, kv: KvType) -> None:
    case = make(*MIXED, size=24, kv=kv)
    (want,) = case.reference("pool_queries", case.q, kind=kind)
    got = Built(pool_queries(PoolSpec(4, 24, kind, V3)))(*case.step, case.q, np.full_like(want, 7))[-1]
    close(got, want, 8 * EPS)
    for decode in (False, True):
        attrs: dict[str, Any] = {"layer": LAYER, "kv_heads": 2, "size": 24, "kind": kind, "decode": decode}
        (want,) = case.reference("pool_keys", **attrs)
        kernel = Built(pool_keys(PoolSpec(2, 24, kind, V3, kv, decode)))
        (got,) = on_keys(kernel, case, out=[np.full_like(want, 7)])
        close(got, want, 8 * EPS)


@pytest.mark.parametrize("band", [(), (0, 3), (2, 8)])
def test_block_scores(band: tuple[int, ...]) -> None:
    case = make(*MIXED)
    (qp,) = case.reference("pool_queries", case.q)
    (kp,) = case.reference("pool_keys", layer=LAYER, kv_heads=2, size=16)
    attrs = {"start": band[0], "end": band[1]} if band else {}
    (want,) = case.reference("band_scores" if band else "block_scores", qp, kp, scale=0.25, **attrs)
    kernel = Built(block_scores(DotSpec(4, 2, 16, 0.25, V3, band)))
    got = kernel(*case.step, qp, kp, scores_like(case, 4))[-1]
    close(got, want, 64 * EPS)
    (want,) = case.reference("softmax_blocks", got)
    close(Built(softmax_blocks(4, V3))(got, np.zeros_like(got))[-1], want, 8 * EPS)
    for kind in ("sum", "mean", "max"):
        (want,) = case.reference("pool_heads", got, groups=2, kind=kind)
        pooled = Built(pool_heads(4, 2, kind))(got, scores_like(case, 2))[-1]
        close(pooled, want, 8 * EPS)


ANTIDIAGONAL = [(8, 16, "f32"), (16, 24, "f16"), (4, 16, "int8"), (1, 8, "f32"), (32, 16, "f32"), (64, 8, "f32")]


@pytest.mark.parametrize(("stride", "size", "kv"), ANTIDIAGONAL)
def test_antidiagonal_scores(stride: int, size: int, kv: KvType) -> None:
    case = make(*MIXED, heads=6, size=size, kv=kv)
    for decode in (False, True):
        spec = AntidiagonalSpec(6, 2, size, stride, size**-0.5, V3, 1.5, kv, decode)
        kernel = Built(antidiagonal(spec))
        attrs: dict[str, Any] = {"layer": LAYER, "kv_heads": 2, "scale": size**-0.5, "stride": stride}
        (want,) = case.reference("antidiagonal_scores", case.q, **attrs, norm=1.5, decode=decode)
        (got,) = on_keys(kernel, case, case.q, out=[scores_like(case, 6)])
        close(got, want, 64 // stride * 64 * EPS)
        with threads(1):
            (again,) = on_keys(kernel, case, case.q, out=[scores_like(case, 6)])
        assert np.array_equal(got, again)


@pytest.mark.parametrize(("rows", "kv"), [(64, "f32"), (7, "f16"), (100, "int8")])
def test_line_scores(rows: int, kv: KvType) -> None:
    case = make(*MIXED, size=24, kv=kv)
    for decode in (False, True):
        kernel = Built(line_scores(LineSpec(4, 2, 24, rows, 0.2, V3, kv, decode)))
        attrs: dict[str, Any] = {"layer": LAYER, "kv_heads": 2, "scale": 0.2, "rows": rows, "decode": decode}
        want = case.reference("line_scores", case.q, **attrs)
        got = on_keys(kernel, case, case.q, out=[np.full_like(w, 7) for w in want])
        for g, w in zip(got, want, strict=True):
            close(g, w, rows * 32 * EPS)


@pytest.mark.parametrize(("window", "stride", "kv"), [(32, 16, "f32"), (64, 32, "f16"), (8, 8, "int8")])
def test_compressed_scores(window: int, stride: int, kv: KvType) -> None:
    case = make(*MIXED, heads=6, size=24, kv=kv)
    for decode in (False, True):
        kernel = Built(compressed_scores(WindowSpec(6, 2, 24, window, stride, 0.2, V3, kv, decode)))
        attrs: dict[str, Any] = {"layer": LAYER, "kv_heads": 2, "scale": 0.2, "kernel": window, "stride": stride}
        (want,) = case.reference("compressed_scores", case.q, **attrs, decode=decode)
        (got,) = on_keys(kernel, case, case.q, out=[scores_like(case, 2)])
        close(got, want, 3 * 32 * EPS)


def test_bound_scores() -> None:
    case = make(*MIXED, heads=6, size=24)
    for decode in (False, True):
        attrs: dict[str, Any] = {"layer": LAYER, "kv_heads": 2, "size": 24, "decode": decode}
        lo, hi = (case.reference("pool_keys", **attrs, kind=kind)[0] for kind in ("min", "max"))
        (want,) = case.reference("bound_scores", case.q, lo, hi, scale=0.2, decode=decode)
        kernel = Built(bound_scores(BoundSpec(6, 2, 24, 0.2, V3, decode)))
        got = kernel(*case.step, case.q, lo, hi, scores_like(case, 6))[-1]
        close(got, want, 48 * 4 * EPS)


@pytest.mark.parametrize(("blocks", "kv"), [(1, "f32"), (3, "f16"), (4, "int8"), (20, "f32")])
def test_halving(blocks: int, kv: KvType) -> None:
    case = make([640, 1, 150, 0, 63], [0, 700, 333, 5, 1], size=24, kv=kv)
    forced = np.random.default_rng(1).random((case.rows, 4, case.width)) < 0.1
    for decode in (False, True):
        attrs: dict[str, Any] = {"layer": LAYER, "kv_heads": 2, "blocks": blocks, "decode": decode}
        (want,) = case.reference("halving_blocks", case.q, forced, **attrs)
        kernel = Built(halving(HalvingSpec(4, 2, 24, blocks, V3, kv, decode)))
        (got,) = on_keys(kernel, case, case.q, forced.astype(np.int8), out=[np.full(forced.shape, 7, np.int8)])
        assert np.array_equal(got, want)
