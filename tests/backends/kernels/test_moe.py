"""Choice of experts, sort and grouped GEMMs against the IR's references; bit equality over T and thread counts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.backends.program.pack import convert, pack_glu_panels, pack_panels, widen
from fretsaw.backends.program.specs.moe import CombineSpec, GroupedSpec, RouteSpec, SortSpec
from fretsaw.backends.tvm.kernels.isa import V3, V4
from fretsaw.backends.tvm.registry import build_kernel
from fretsaw.ir.op import get_op
from tests.backends.kernels.kernel_run import Array, Built, assembly, threads

WIDE = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@cache
def router(experts: int, slots: int, before: bool, normalize: bool) -> Built:
    return Built(build_kernel(RouteSpec(experts, slots, before, normalize), V3))


def route(run: Built, logits: Array, slots: int) -> tuple[Array, Array]:
    shape = (len(logits), slots)
    _, index, weight = run(logits, np.full(shape, -1, np.int32), np.zeros(shape, np.float32))
    return index, weight


@pytest.mark.parametrize(("experts", "slots"), [(1, 1), (3, 3), (11, 2), (37, 6)])
@pytest.mark.parametrize("order", ["before", "normalized", "after"])
def test_route_equals_the_reference_with_ties(experts: int, slots: int, order: str) -> None:
    rng = np.random.default_rng(experts)
    logits = rng.integers(-8, 8, (45, experts)).astype(np.float32) / 2  # many equal logits
    attrs = {"k": slots, "softmax": "after" if order == "after" else "before", "normalize": order == "normalized"}
    want_index, want = get_op("router").reference([logits.astype(np.float64)], attrs)
    run = router(experts, slots, order != "after", order == "normalized")
    index, weight = route(run, logits, slots)
    np.testing.assert_array_equal(index, want_index)
    np.testing.assert_allclose(weight, want, rtol=2e-6)
    for t in (0, 1, 9):
        few = route(run, logits[45 - t :], slots)
        np.testing.assert_array_equal(few[0], index[45 - t :])
        np.testing.assert_array_equal(few[1], weight[45 - t :])


def test_route_of_nan_and_infinity_stays_in_range() -> None:
    logits = np.full((4, 11), np.nan, np.float32)
    logits[1, 3:7], logits[2], logits[3] = 1.0, -np.inf, np.inf
    index, _ = route(router(11, 2, True, True), logits, 2)
    assert ((index >= 0) & (index < 11)).all()
    assert all(len(set(row)) == 2 for row in index.tolist())


@given(st.integers(0, 40), st.lists(st.integers(0, 6), min_size=1, max_size=3), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_sort_is_stable(tokens: int, used: list[int], seed: int) -> None:
    index = np.random.default_rng(seed).choice(used, (tokens, 2)).astype(np.int32)
    _, offsets, order = sorter(7, 2)(index, np.full(8, -1, np.int32), np.full(tokens * 2, -1, np.int32))
    np.testing.assert_array_equal(order, np.argsort(index.reshape(-1), kind="stable"))
    counts = np.bincount(index.reshape(-1), minlength=7)
    np.testing.assert_array_equal(offsets, np.concatenate([[0], np.cumsum(counts)]))


@cache
def sorter(experts: int, slots: int) -> Built:
    return Built(build_kernel(SortSpec(experts, slots), V3))


@dataclass(frozen=True)
class Case:
    """Sizes of a mixture, how its weights are stored, and its activation."""

    experts: int
    width: int
    hidden: int
    slots: int
    weights: str
    act: str

    @property
    def clamped(self) -> bool:
        return self.act == "clamped_swiglu"

    def specs(self) -> tuple[GroupedSpec, GroupedSpec, CombineSpec]:
        sizes = (self.experts, self.hidden, self.width)
        limits = (0.9, 1.702) if self.clamped else (0.0, 0.0)
        up = GroupedSpec(*sizes, self.weights, self.slots, self.act, *limits, bias=self.clamped)
        down = GroupedSpec(self.experts, self.width, self.hidden, self.weights, bias=self.clamped)
        residual = CombineSpec(self.width, self.slots, ("add", ("leaf", 1), ("leaf", 0)), ("full",))
        return up, down, residual


CASES = (
    Case(7, 33, 21, 2, "f32", "silu"),
    Case(5, 48, 40, 3, "bf16", "gelu_tanh"),
    Case(4, 17, 64, 1, "f16", "gelu"),
    Case(6, 20, 13, 2, "f32", "clamped_swiglu"),
)


class Mixture:
    """Weights of a case and its kernels, compiled."""

    def __init__(self, case: Case) -> None:
        rng, c = np.random.default_rng(3), case
        self.case, dtype = c, WIDE[c.weights]
        shapes = (c.experts, 2 * c.hidden, c.width), (c.experts, c.width, c.hidden)
        made = (rng.standard_normal(s) / 4 for s in shapes)
        stored = [convert(w.astype(np.float32), dtype) for w in made]
        self.exact = [widen(w, dtype) for w in stored]
        halves = self.exact[0][:, : c.hidden], self.exact[0][:, c.hidden :]
        self.panels = pack_glu_panels(*halves, dtype), pack_panels(self.exact[1], dtype)
        self.biases = [rng.standard_normal((c.experts, n)).astype(np.float32) for n in (2 * c.hidden, c.width)]
        self.up, self.down, self.combine = (Built(build_kernel(s, V3)) for s in c.specs())

    def __call__(self, x: Array, index: Array, weight: Array, residual: Array) -> Array:
        c, pairs = self.case, index.size
        empty = np.zeros(c.experts + 1, np.int32), np.zeros(pairs, np.int32)
        _, offsets, order = sorter(c.experts, c.slots)(index, *empty)
        gate, up = (np.ascontiguousarray(h).reshape(-1) for h in np.split(self.biases[0], 2, axis=1))
        one, two = ((gate, up), (self.biases[1].reshape(-1),)) if c.clamped else ((), ())
        nan = np.float32(np.nan)  # a row that nobody writes poisons the result
        inner = self.up(x, offsets, order, self.panels[0], *one, np.full((pairs, c.hidden), nan))[-1]
        outer = self.down(inner, offsets, order, self.panels[1], *two, np.full((pairs, c.width), nan))[-1]
        return self.combine(outer, weight, residual, np.full((len(x), c.width), nan))[-1]

    def reference(self, x: Array, index: Array, weight: Array, residual: Array) -> Array:
        c, biases = self.case, self.biases if self.case.clamped else []
        arrays = [x.astype(np.float64), index, weight.astype(np.float64)]
        attrs = {"act": c.act, "layout": "concat", "limit": 0.9, "alpha": 1.702}
        arrays += [a.astype(np.float64) for a in (*self.exact, *biases)]
        return get_op("experts").reference(arrays, attrs)[0] + residual


mixture = cache(Mixture)


def draw(case: Case, tokens: int, used: list[int], seed: int) -> tuple[Array, Array, Array, Array]:
    """Inputs whose tokens choose among ``used`` (and the experts after them) alone."""
    rng = np.random.default_rng(seed)
    pool = np.unique([(u + i) % case.experts for u in used for i in range(case.slots)])
    picks = [rng.permutation(pool)[: case.slots] for _ in range(tokens)]
    index = np.array(picks, np.int32).reshape(tokens, case.slots)
    x, residual = (rng.standard_normal((tokens, case.width)).astype(np.float32) for _ in range(2))
    return x, index, rng.random(index.shape, np.float32), residual


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.act}-{c.weights}")
@given(st.integers(0, 40), st.lists(st.integers(0, 6), min_size=1, max_size=7), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_experts_equal_the_reference(case: Case, tokens: int, used: list[int], seed: int) -> None:
    inputs = draw(case, tokens, used, seed)
    want = mixture(case).reference(*inputs)
    # Two chains of at most 64 products of values around one, in f32: 64 eps of the largest, 4e-6, with some room.
    np.testing.assert_allclose(mixture(case)(*inputs), want, rtol=0, atol=1e-5 * (1 + np.abs(want).max(initial=0)))


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.act}-{c.weights}")
def test_batch_and_threads_do_not_show(case: Case) -> None:
    """Each of 40 tokens has the same bits alone, in any chunk, on one thread and on two."""
    inputs, run = draw(case, 40, [0, 0, 0, 3], 5), mixture(case)
    whole = run(*inputs)
    assert not np.array_equal(run(*(a[:6] for a in inputs)), whole[1:7])
    for count in (1, 2):
        with threads(count):
            for cuts in ([0, 40], [0, 1, 2, 4, 9, 40], [0, 7, 20, 33, 40]):
                parts = [run(*(a[low:high] for a in inputs)) for low, high in zip(cuts, cuts[1:], strict=False)]
                np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_an_expert_without_tokens_is_not_read() -> None:
    """Weights of experts that nobody chose may be anything."""
    case = CASES[0]
    inputs = draw(case, 13, [2], 1)
    clean, run = mixture(case)(*inputs), Mixture(case)
    unused = [e for e in range(case.experts) if e not in inputs[1]]
    for panels in run.panels:
        panels[unused] = np.nan
    np.testing.assert_array_equal(run(*inputs), clean)


@pytest.mark.parametrize("spec", CASES[1].specs()[:2], ids=["up", "down"])
def test_kernels_are_emitted_for_avx512(spec: GroupedSpec) -> None:
    """Code is generated for a machine that the tests may not run on."""
    assert "zmm" in assembly(build_kernel(spec, V4), V4)
