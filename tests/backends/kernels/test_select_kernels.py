"""Compiled selectors against the ops' references: masks, rules and lists."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from fretsaw.backends.tvm.kernels.select_line_blocks import LineBlockSpec, line_blocks
from fretsaw.backends.tvm.kernels.select_line_tokens import LineTokenSpec, line_tokens
from fretsaw.backends.tvm.kernels.select_masks import MaskSpec, block_tokens, compact, mask, pick, union
from fretsaw.backends.tvm.kernels.select_rules import RuleSpec, rule
from tests.backends.kernels.kernel_run import Array, Built, threads
from tests.backends.kernels.select_case import MIXED, Case, make

CASES = [make(*MIXED), make([1], [0]), make([64], [64]), make([2], [127]), make([640], [0])]


@cache
def built_rule(kind: str, value: float, groups: int = 4) -> Built:
    return Built(rule(RuleSpec(kind, groups, value)))


def run_mask(case: Case, spec: MaskSpec, kernel: Built) -> Array:
    return kernel(*case.step, np.full((case.rows, spec.groups, case.width), 7, np.int8))[-1]


def run_rule(case: Case, kernel: Built, scores: Array, forced: Array) -> Array:
    return kernel(*case.step, scores, forced.astype(np.int8), np.full(forced.shape, 7, np.int8))[-1]


MASKS: list[tuple[str, MaskSpec, dict[str, object]]] = [
    ("causal_blocks", MaskSpec("causal", 3), {"groups": 3}),
    ("forced_blocks", MaskSpec("forced", 3, (1,), local=2), {"groups": 3, "sink": 1, "local": 2}),
    (
        "forced_blocks", MaskSpec("forced", 1, dense_until=150, last_rows=70),
        {"groups": 1, "dense_until": 150, "last_rows": 70},
    ),
    ("span_blocks", MaskSpec("span", 3, (0, 65, 10), (64, 0, 130)), {"sink": (0, 65, 10), "window": (64, 0, 130)}),
    ("span_blocks", MaskSpec("span", 1, (1,), (1,), last_rows=9), {"sink": (1,), "window": (1,), "last_rows": 9}),
    (
        "strided_blocks", MaskSpec("strided", 2, local=1, stride=3, offsets=(0, 2)),
        {"local": 1, "stride": 3, "offsets": (0, 2)},
    ),
    ("prompt_blocks", MaskSpec("prompt", 2), {"groups": 2}),
    ("elastic_blocks", MaskSpec("elastic", 1, (1,), (-100, 5)), {"groups": 1, "alpha": -100, "beta": 5}),
    ("elastic_blocks", MaskSpec("elastic", 1, (0,), (65, 1)), {"groups": 1, "sink": 0, "alpha": 65, "beta": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "spec", "attrs"), MASKS, ids=[f"{m[0]}{i}" for i, m in enumerate(MASKS)])
def test_masks(op: str, spec: MaskSpec, attrs: dict[str, object]) -> None:
    kernel = Built(mask(spec))
    for case in CASES:
        (want,) = case.reference(op, **attrs)
        assert np.array_equal(run_mask(case, spec, kernel), want)


def inputs(case: Case, kind: int, groups: int = 4) -> tuple[Array, Array]:
    """Scores of many sorts, and forced blocks."""
    rng = np.random.default_rng(kind)
    shape = (case.rows, groups, case.width)
    scores = rng.standard_normal(shape).astype(np.float32)
    if kind == 1:
        scores = np.exp(scores * 8)
    elif kind == 2:
        scores = np.round(scores).astype(np.float32) * np.float32(0.0 if groups == 1 else 1.0)  # ties, and -0
    elif kind == 3:
        scores[rng.random(shape) < 0.4] = np.nan
        scores[rng.random(shape) < 0.2] = np.inf
        scores[rng.random(shape) < 0.2] = -np.inf
    elif kind == 4:
        scores[:] = 0.25
    elif kind >= 5:
        scores = np.exp(scores - 20.0 * (kind - 4) * (np.arange(case.width) > 0)).astype(np.float32)
    return scores, rng.random(shape) < 0.15


RULES = [("top_k", "k", [1, 2, 3, 7, 10, 99]), ("share", "density", [0.01, 0.3, 0.5, 1.0]),
         ("top_p", "p", [0.0, 0.3, 0.9, 0.999, 1.0]), ("above", "threshold", [-1.0, 0.0, 0.1, 2.0])]  # fmt: skip


@pytest.mark.parametrize(("kind", "attr", "values"), RULES, ids=[r[0] for r in RULES])
def test_rules_choose_what_the_reference_chooses(kind: str, attr: str, values: list[float]) -> None:
    for value in values:
        kernel = built_rule(kind, value)
        for case in (CASES[0], CASES[4]):
            for sort in range(8):
                scores, forced = inputs(case, sort)
                (want,) = case.reference(f"select_{kind}", scores, forced, **{attr: value})
                got = run_rule(case, kernel, scores, forced)
                assert np.array_equal(got, want), (value, sort)


def test_lists_unions_and_picks() -> None:
    case = CASES[0]
    rng = np.random.default_rng(0)
    a, b = (rng.random((case.rows, g, case.width)) < 0.4 for g in (4, 4))
    one, two = (rng.random((case.rows, g, case.width)) < 0.4 for g in (1, 2))
    blank = np.full(a.shape, 7, np.int8)
    assert np.array_equal(Built(union(4))(*(x.astype(np.int8) for x in (a, b)), blank)[-1], a | b)
    choice = (0, 2, 1, 2)
    got = Built(pick(choice, (4, 1, 2)))(*(x.astype(np.int8) for x in (a, one, two)), blank)[-1]
    assert np.array_equal(got, np.stack([a[:, 0], two[:, 0], one[:, 0], two[:, 1]], 1))
    idx, cnt = Built(compact(4))(a.astype(np.int8), blank.astype(np.int32), np.zeros(a.shape[:2], np.int32))[1:]
    for row, g in np.ndindex(cnt.shape):
        want = np.flatnonzero(a[row, g])
        assert cnt[row, g] == len(want) and np.array_equal(idx[row, g, : len(want)], want)
        assert not idx[row, g, len(want) :].any()


def test_rules_are_the_same_with_any_number_of_threads() -> None:
    case, kernel = CASES[0], built_rule("top_p", 0.9)
    scores, forced = inputs(case, 1)
    both = run_rule(case, kernel, scores, forced)
    with threads(1):
        assert np.array_equal(run_rule(case, kernel, scores, forced), both)


def line_inputs(case: Case, sort: int, heads: int = 3) -> list[Array]:
    """Columns and diagonals, with ties, NaN and a leading first line."""
    rng = np.random.default_rng(sort)
    shape = (len(case.counts), heads, case.width * 64)
    lines = [np.exp(3 * rng.standard_normal(shape)).astype(np.float32) for _ in range(2)]
    if sort == 1:
        lines = [np.ones_like(a) for a in lines]
    elif sort == 2:
        lines[0][rng.random(shape) < 0.3] = np.nan
        lines[1][..., 0] = 1e30
    elif sort == 3:
        lines = [np.round(a) for a in lines]
    return lines


LINES: list[tuple[str, LineBlockSpec, dict[str, object]]] = [
    (
        "line_blocks", LineBlockSpec("lines", 3, (10, 5), (3, 2)),
        {"columns": 10, "diagonals": 5, "first_columns": 3, "near_diagonals": 2},
    ),
    (
        "line_blocks", LineBlockSpec("lines", 3, (2, 150), (3, 70)),
        {"columns": 2, "diagonals": 150, "first_columns": 3, "near_diagonals": 70},
    ),
    ("line_blocks", LineBlockSpec("lines", 3, (0, 9999)), {"columns": 0, "diagonals": 9999}),
    (
        "line_block_scores", LineBlockSpec("scores", 3, (10, 20), (1, 1)),
        {"columns": 10, "diagonals": 20, "first_columns": 1, "near_diagonals": 1},
    ),
    ("flex_blocks", LineBlockSpec("flex", 3, gamma=0.9), {"gamma": 0.9}),
    (
        "flex_blocks", LineBlockSpec("flex", 3, gamma=0.5, least=2, most=3),
        {"gamma": 0.5, "min_blocks": 2, "max_blocks": 3},
    ),
    ("flex_blocks", LineBlockSpec("flex", 3, gamma=1.0, most=2), {"gamma": 1.0, "max_blocks": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "spec", "attrs"), LINES, ids=[f"{m[0]}{i}" for i, m in enumerate(LINES)])
def test_blocks_of_lines(op: str, spec: LineBlockSpec, attrs: dict[str, object]) -> None:
    kernel, case = Built(line_blocks(spec)), CASES[0]
    forced = np.random.default_rng(0).random((case.rows, 3, case.width)) < 0.1
    for sort in range(4):
        lines = line_inputs(case, sort)
        mask_of = [forced] if spec.kind != "scores" else []
        (want,) = case.reference(op, *lines, *mask_of, **attrs)
        blank = np.full(forced.shape, 7, np.float32 if spec.kind == "scores" else np.int8)
        got = kernel(*case.step, *lines, *(m.astype(np.int8) for m in mask_of), blank)[-1]
        # scores: sums of up to 30 numbers in f64 in another order, rounded to f32
        assert np.allclose(got, want, rtol=2e-7, atol=0) if spec.kind == "scores" else np.array_equal(got, want), sort


@pytest.mark.parametrize(("counts", "first"), [((11, 0, 5), 5), ((4, 9999, 70), 0), ((0, 0, 300), 300)])
def test_columns_as_tokens(counts: tuple[int, ...], first: int) -> None:
    kernel = Built(line_tokens(LineTokenSpec(counts, first)))
    for n, case in enumerate(CASES):
        mask_of = np.random.default_rng(n).random((case.rows, 3, case.width)) < 0.3
        blanks = np.full((case.rows, 3, max(counts)), 7, np.int32), np.full((case.rows, 3), 7, np.int32)
        for sort in range(4):
            columns = line_inputs(case, sort)[0]
            want = case.reference("line_tokens", columns, mask_of, columns=counts, first_columns=first)
            got = kernel(*case.step, columns, mask_of.astype(np.int8), *blanks)[-2:]
            assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True)), (n, sort)


def test_tokens_of_blocks() -> None:
    kernel = Built(block_tokens(2))
    for n, case in enumerate(CASES):
        rng = np.random.default_rng(n)
        far, read = (rng.random((case.rows, 2, case.width)) < p for p in (0.6, 0.4))
        want = case.reference("block_tokens", far, read)
        blanks = np.full((case.rows, 2, case.width * 64), 7, np.int32), np.full((case.rows, 2), 7, np.int32)
        got = kernel(*case.step, far.astype(np.int8), read.astype(np.int8), *blanks)[-2:]
        assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True)) and want[1].any()
