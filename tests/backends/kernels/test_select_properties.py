"""What compiled selectors keep on any scores, and that a sequence is the same bits alone, in a batch and in chunks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import tirx

from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.backends.tvm.kernels.select_antidiagonal import AntidiagonalSpec, antidiagonal
from fretsaw.backends.tvm.kernels.select_bounds import BoundSpec, bound_scores
from fretsaw.backends.tvm.kernels.select_dots import softmax_blocks
from fretsaw.backends.tvm.kernels.select_lines import LineSpec, line_scores
from fretsaw.backends.tvm.kernels.select_pools import PoolSpec, pool_keys
from fretsaw.backends.tvm.kernels.select_rules import RuleSpec, rule
from fretsaw.backends.tvm.kernels.select_windows import WindowSpec, compressed_scores
from tests.backends.kernels.kernel_run import Array, Built
from tests.backends.kernels.select_case import LAYER, Case, make

STEP = make([640, 1, 100], [0, 300, 28])
RULES: list[tuple[str, list[float]]] = [
    ("top_k", [1, 3, 10]), ("share", [0.05, 0.5, 1.0]), ("top_p", [0.5, 0.95, 1.0]), ("above", [0.5, 1e-6, 0.0]),
]  # fmt: skip


@cache
def built(kind: str, value: float) -> Built:
    return Built(rule(RuleSpec(kind, 2, value)))


def causal(case: Case) -> Array:
    (out,) = case.reference("causal_blocks", groups=2)
    return out


@settings(max_examples=40, deadline=None)
@given(
    which=st.sampled_from(RULES), nats=st.sampled_from([0.0, 20.0, 60.0, 110.0]), seed=st.integers(0, 999),
    odd=st.sampled_from(["none", "ties", "nan", "inf"]),
)  # fmt: skip
def test_rules_keep_what_they_must(which: tuple[str, list[float]], nats: float, seed: int, odd: str) -> None:
    """S1, S3, S4, S5 and S9, on scores whose first block leads by that many nats."""
    rng = np.random.default_rng(seed)
    shape = (STEP.rows, 2, STEP.width)
    scores = np.exp(rng.standard_normal(shape) - nats * (np.arange(STEP.width) > 0)).astype(np.float32)
    if odd == "ties":
        scores[:] = 0.7
    elif odd != "none":
        scores[rng.random(shape) < 0.3] = np.nan if odd == "nan" else np.inf
    forced, seen, before = rng.random(shape) < 0.1, causal(STEP), np.zeros(shape, bool)
    for value in which[1]:
        args = (*STEP.step, scores, forced.astype(np.int8), np.full(shape, 7, np.int8))
        kept = built(which[0], value)(*args)[-1]
        assert np.array_equal(built(which[0], value)(*args)[-1], kept) and set(np.unique(kept)) <= {0, 1}
        kept = kept.astype(bool)
        assert not (kept & ~seen).any() and not (forced & seen & ~kept).any() and not (before & ~kept).any()
        before = kept
        if which[0] == "top_p":
            mass = np.where(seen & (scores > 0), scores, 0).astype(np.float64)
            want, got = value * mass.sum(axis=2), np.where(kept, mass, 0).sum(axis=2)
            # The sums are in another order than the rule's.
            assert ((got >= want * (1 - 1e-12)) | ~np.isfinite(want)).all()
    assert np.array_equal(before, seen)


def keyed(kernel: Built, case: Case, shape: tuple[int, ...], results: int = 1) -> list[Array]:
    """Results of a kernel on cached keys and queries."""
    k, _, table, lens, cu = case.paged
    blank = [np.full(shape, 7, np.float32) for _ in range(results)]
    return kernel(k, table, lens, cu, case.q, *blank, scalars=(LAYER,), results=results)[-results:]


SCORES: dict[str, tuple[Callable[[], tirx.PrimFunc], int]] = {
    "antidiagonal": (lambda: antidiagonal(AntidiagonalSpec(4, 2, 16, 8, 0.25, V3)), 4),
    "compressed": (lambda: compressed_scores(WindowSpec(4, 2, 16, 32, 16, 0.25, V3)), 2),
}


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_the_same_bits_alone_in_a_batch_and_in_chunks(name: str) -> None:
    make_kernel, heads = SCORES[name]
    kernel = Built(make_kernel())
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((450, 2, 16)).astype(np.float32)
    q = rng.standard_normal((450, 4, 16)).astype(np.float32)

    def scores(counts: list[int], before: list[int], which: int) -> Array:
        """Rows of one sequence of a step in which every sequence has the first of these keys and queries."""
        case = make(counts, before, keys=keys)
        case.q[:] = np.concatenate([q[x : x + n] for n, x in zip(counts, before, strict=True)])
        (got,) = keyed(kernel, case, (case.rows, heads, case.width))
        rows = [b.row for b in case.cache.query_blocks() if b.sequence == which]
        return got[rows][..., : -(-(counts[which] + before[which]) // 64)]

    whole = scores([450], [0], 0)
    assert np.array_equal(scores([70, 450, 1, 33], [0, 0, 99, 64], 1), whole)
    for first, end in ((0, 64), (64, 256), (256, 450)):
        part = scores([5, end - first], [200, first], 1)
        assert np.array_equal(part, whole[first // 64 : first // 64 + len(part), :, : part.shape[2]]), (first, end)


def test_lines_are_the_same_bits_in_a_batch() -> None:
    kernel = Built(line_scores(LineSpec(4, 2, 16, 20, 0.25, V3)))
    keys = np.random.default_rng(0).standard_normal((450, 2, 16)).astype(np.float32)
    alone = make([150], [30], keys=keys)
    batch = make([9, 150], [40, 30], keys=keys)
    batch.q[9:] = alone.q
    for a, b in zip(
        keyed(kernel, alone, (1, 4, alone.width * 64), 2), keyed(kernel, batch, (2, 4, batch.width * 64), 2),
        strict=True,
    ):  # fmt: skip
        assert np.array_equal(a[0, :, :180], b[1, :, :180])


@settings(max_examples=20, deadline=None)
@given(nats=st.sampled_from([20.0, 60.0, 110.0]), seed=st.integers(0, 99))
def test_mass_of_led_inputs(nats: float, seed: int) -> None:
    """Keys that lead by tens of nats: masses stay numbers, and those of a row's cells add up to their count."""
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((200, 2, 16)).astype(np.float32)
    keys[:8, :, 0] = nats / 0.25
    case = make([200], [0], keys=keys)
    case.q[..., 0] = 1
    (got,) = keyed(led_kernel(), case, (case.rows, 4, case.width))
    for block in case.cache.query_blocks():
        row = got[block.row, :, : block.block + 1]
        cells = -(-len(block.positions) // 8)
        assert (row >= 0).all() and np.abs(row.sum(axis=1) - cells).max() < 1e-5


@cache
def led_kernel() -> Built:
    return Built(antidiagonal(AntidiagonalSpec(4, 2, 16, 8, 0.25, V3)))


def test_bounds_of_compiled_pools_bound_every_logit() -> None:
    """S6."""
    case = make([200, 70], [0, 64], seed=3)
    k, _, table, lens, cu = case.paged
    ends = []
    for kind in ("min", "max"):
        blank = np.zeros((2, 2, case.width, 16), np.float32)
        ends.append(
            Built(pool_keys(PoolSpec(2, 16, kind, V3)))(k, table, lens, cu, blank, scalars=(LAYER,), results=1)[-1]
        )
    blank = np.zeros((case.rows, 4, case.width), np.float32)
    got = Built(bound_scores(BoundSpec(4, 2, 16, 0.25, V3)))(*case.step, case.q, *ends, blank)[-1]
    for block in case.cache.query_blocks():
        keys, _ = case.cache.read(LAYER, block.sequence)
        for h in range(4):
            logits = case.q[block.tokens, h] @ keys[:, h // 2].T * 0.25
            for j in range(block.block + 1):
                assert got[block.row, h, j] >= logits[:, j * 64 : j * 64 + 64].max() - 1e-5


def test_softmax_does_not_depend_on_the_width_of_the_table() -> None:
    kernel, rng = Built(softmax_blocks(2, V3)), np.random.default_rng(0)
    narrow = rng.standard_normal((5, 2, 11)).astype(np.float32)
    wide = np.full((5, 2, 29), -np.inf, np.float32)
    wide[..., :11] = narrow
    a, b = (kernel(x, np.zeros_like(x))[-1] for x in (narrow, wide))
    assert np.array_equal(a, b[..., :11]) and not b[..., 11:].any()
