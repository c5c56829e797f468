"""Compiled kernels of hashes, gates, representatives and FlexPrefill's switch against the ops' references in f64.

Bounds as in test_select_scores.py; choices are equal, on inputs that leave no doubt about them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.backends.tvm.kernels.select_chunks import ChunkSpec, chunk_keys
from fretsaw.backends.tvm.kernels.select_flex import FlexSpec, flex_switch
from fretsaw.backends.tvm.kernels.select_gate import GateSpec, gate_keys, gate_queries
from fretsaw.backends.tvm.kernels.select_hash import HashSpec, hash_scores, sampled_blocks
from fretsaw.backends.tvm.kernels.select_masks import MaskSpec, mask
from fretsaw.backends.tvm.kernels.select_representatives import RepresentativeSpec, representative_keys
from fretsaw.ir.ops.select_hash import mixed
from tests.backends.kernels.kernel_run import Array, Built, threads
from tests.backends.kernels.select_case import LAYER, MIXED, Case, make
from tests.backends.kernels.test_select_scores import EPS, close, on_keys, scores_like

LONG = ([640, 1, 150, 0, 63], [0, 700, 333, 5, 1])


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def masks_like(case: Case, groups: int) -> Array:
    return np.full((case.rows, groups, case.width), 7, np.int8)


def frequencies(size: int) -> Array:
    return (10000.0 ** -(np.arange(size // 2) / (size // 2))).astype(np.float32)


@pytest.mark.parametrize("planes", [7, 20])
def test_hash_scores(planes: int) -> None:
    case, normals = make(*LONG, size=24), normal(2, 24, planes)
    (qp,) = case.reference("pool_queries", case.q)
    (kp,) = case.reference("pool_keys", layer=LAYER, kv_heads=2, size=24)
    (want,) = case.reference("hash_scores", qp, kp, normals)
    got = Built(hash_scores(HashSpec(4, 2, 24, planes)))(*case.step, qp, kp, normals, scores_like(case, 4))[-1]
    assert np.array_equal(got, want) and len(np.unique(want)) > 2


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (4, 5_000_000_001)])
def test_sampled_blocks(count: int, seed: int) -> None:
    case = make(*LONG)
    (want,) = case.reference("sampled_blocks", groups=5, count=count, seed=seed)
    got = Built(sampled_blocks(5, count, seed))(*case.step, masks_like(case, 5))[-1]
    assert np.array_equal(got, want)


def test_numbers_of_a_row_differ() -> None:
    """What lets the kernel draw without minding ties: the last round maps blocks one to one."""
    assert len(np.unique(mixed(1, 2, 3, np.arange(100_000)))) == 100_000


def test_earlier_blocks() -> None:
    case = make(*MIXED)
    (want,) = case.reference("earlier_blocks", groups=3)
    assert np.array_equal(Built(mask(MaskSpec("earlier", 3)))(*case.step, masks_like(case, 3))[-1], want)


@pytest.mark.parametrize(("layout", "weighted"), [("half", True), ("interleaved", True), ("half", False)])
def test_gate_queries(layout: str, weighted: bool) -> None:
    case, freq = make(*MIXED, size=24), frequencies(24)
    weight = [normal(4, 4, 24, 24)] if weighted else []
    (want,) = case.reference("gate_queries", case.q, freq, *weight, layout=layout, rope_scale=1.3)
    kernel = Built(gate_queries(GateSpec(4, 24, 4, layout, V3, weighted)))
    close(kernel(*case.step, case.q, freq, *weight, np.full_like(want, 7))[-1], want, 32 * 24 * EPS)


GATES = [("half", 2, "f32"), ("interleaved", 6, "f16"), ("half", 4, "int8")]


@pytest.mark.parametrize(("layout", "gates", "kv"), GATES)
def test_gate_keys(layout: str, gates: int, kv: KvType) -> None:
    case, weight, freq = make(*MIXED, size=24, kv=kv), normal(4, gates, 72, 24), frequencies(24)
    for decode in (False, True):
        attrs: dict[str, Any] = {"layer": LAYER, "kv_heads": 2, "layout": layout, "rope_scale": 0.7, "decode": decode}
        (want,) = case.reference("gate_keys", weight, freq, **attrs)
        kernel = Built(gate_keys(GateSpec(2, 24, gates, layout, V3, True, kv, decode)))
        (got,) = on_keys(kernel, case, weight, freq, out=[np.full_like(want, 7)])
        close(got, want, 4 * 72 * 4 * EPS)


@pytest.mark.parametrize(("layout", "size"), [("half", 24), ("interleaved", 16)])
def test_chunk_keys(layout: str, size: int) -> None:
    case = make(*MIXED, heads=6, size=size)
    k, v = (normal(i, len(case.q), 2, size) for i in (1, 2))
    (want,) = case.reference("chunk_keys", case.q, k, v, frequencies(size), scale=size**-0.5, layout=layout)
    kernel = Built(chunk_keys(ChunkSpec(6, 2, size, size**-0.5, layout, V3)))
    got = kernel(*case.step, case.q, k, v, frequencies(size), np.full_like(want, 7))[-1]
    close(got, want, 2 * size * 4 * EPS)
    assert np.abs(want).max() > 0.1


@pytest.mark.parametrize(("window", "count", "kv"), [(100, 4, "f32"), (64, 1, "f16"), (5000, 100, "int8")])
def test_representative_keys(window: int, count: int, kv: KvType) -> None:
    case = make(*MIXED, heads=6, size=24, kv=kv)
    for decode in (False, True):
        attrs: dict[str, Any] = {"layer": LAYER, "kv_heads": 2, "scale": 0.5, "window": window, "count": count}
        (want,) = case.reference("representative_keys", case.q, **attrs, decode=decode)
        spec = RepresentativeSpec(6, 2, 24, window, count, 0.5, V3, kv, decode)
        kernel = Built(representative_keys(spec))
        (got,) = on_keys(kernel, case, case.q, out=[np.full_like(want, 7)])
        close(got, want, min(count, 64) * 4 * EPS)
        with threads(1):
            (again,) = on_keys(kernel, case, case.q, out=[np.full_like(want, 7)])
        assert np.array_equal(got, again)


@pytest.mark.parametrize("gamma", [0.3, 0.9])
def test_flex_switch(gamma: float) -> None:
    """Half of the heads have true columns like their pooled map, the others' lie elsewhere."""
    case = make(*LONG, size=16)
    (qp,) = case.reference("pool_queries", case.q)
    (kp,) = case.reference("pool_keys", layer=LAYER, kv_heads=2, size=16)
    columns = np.zeros((5, 4, case.width * 64), np.float32)
    for block in case.cache.query_blocks():  # the last one of a sequence stays
        for h in range(4):
            n = block.block + 1
            logits = kp[block.sequence, h // 2, :n] @ qp[block.row, h] * 4
            pooled = np.exp(logits - logits.max())
            columns[block.sequence, h, : n * 64] = np.repeat(pooled if h % 2 else pooled[::-1], 64)
    columns[4, 1] = 0
    (visible,) = case.reference("causal_blocks", groups=4)
    lines, few = (visible & (np.random.default_rng(i).random(visible.shape) < 0.3) for i in range(2))
    operands = (columns, qp, kp, lines, few)
    (want,) = case.reference("flex_switch", *operands, gamma=gamma, tau=0.05, scale=4.0)
    kernel = Built(flex_switch(FlexSpec(4, 2, 16, 4.0, gamma, 0.05, V3)))
    got = kernel(*case.step, columns, qp, kp, lines.astype(np.int8), few.astype(np.int8), masks_like(case, 4))[-1]
    assert np.array_equal(got, want)
    assert np.array_equal(want[:10, 0], lines[:10, 0]) and not np.array_equal(want[:10, 1], lines[:10, 1])
