"""Experts in codes, of one width and of several, through plan and kernels against the reference of the IR."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fretsaw.backends.program.plan import plan
from fretsaw.backends.program.specs.moe import GroupedSpec
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.ir import Const, Graph, parse
from fretsaw.ir.interp import run
from fretsaw.ir.quantized import Coded, coded, coded_stack, stack, stored_bytes
from tests.backends.tvm.test_moe_plan import execute

E, D, F, K = 5, 32, 32, 2


def mixture(layout: str) -> Graph:
    return parse(
        f"""graph @g(%x: f32[T, {D}], %logits: f32[T, {E}]) -> (%y) {{
  phase packed
  dim T in [1, 1024]
  const %w1: f32[{E}, {2 * F}, {D}]
  const %w2: f32[{E}, {D}, {F}]
  %index: i64[T, {K}], %weight: f32[T, {K}] = router(%logits) {{k = {K}}}
  %sum: f32[T, {D}] = experts(%x, %index, %weight, %w1, %w2) {{layout = "{layout}"}}
  %y: f32[T, {D}] = add(%x, %sum)  // layer
}}""",
        seed=1,
    )


def random_codes(rng: np.random.Generator, shape: tuple[int, ...], bits: int, group: int) -> Coded:
    terms = (*shape[:-1], shape[-1] // group)
    codes = Const.of(rng.integers(0, 2**bits, shape, dtype=np.uint8))
    scales = Const.of((rng.uniform(0.05, 0.3, terms) / 2**bits).astype(np.float16))
    return Coded(codes, scales, Const.of(rng.normal(0, 0.1, terms).astype(np.float16)), bits, group)


def with_codes(graph: Graph, widths: list[tuple[int, int]]) -> Graph:
    """The graph with experts in codes of these (bits, group), or one width for all of them."""
    rng, consts = np.random.default_rng(0), {}
    for value, const in graph.consts.items():
        _, *rows = (int(str(d)) for d in const.type.shape)
        if len(widths) == 1:
            consts[value] = random_codes(rng, (E, *rows), *widths[0]).const(value.name)
        else:
            consts[value] = stack([random_codes(rng, (1, *rows), *w) for w in widths], value.name)
    return replace(graph, consts=consts)


@pytest.mark.parametrize("layout", ["concat", "interleaved"])
@pytest.mark.parametrize(
    "widths",
    [[(4, 32)], [(3, 32)], [(2, 32), (3, 32), (4, 16), (3, 32), (1, 32)], [(8, 8)] * 5],
    ids=["u4", "u3", "several", "alike"],
)
def test_equals_the_reference(widths: list[tuple[int, int]], layout: str) -> None:
    graph = with_codes(mixture(layout), widths)
    made = plan(graph, TvmOptions())
    classes = [x.spec.classes for x in made.launches if isinstance(x.spec, GroupedSpec)]
    want_classes = {"u2_g32": 1, "u3_g32": 2, "u4_g16": 1, "u1_g32": 1} if len(set(widths)) > 1 else {}
    assert [dict(c) for c in classes] == [want_classes] * 2
    rng = np.random.default_rng(2)
    for tokens in (0, 1, 2, 23):
        feeds = {
            "x": rng.standard_normal((tokens, D)).astype(np.float32),
            "logits": rng.standard_normal((tokens, E)).astype(np.float32),
        }
        got = execute(made, {v: feeds[v.name] for v in graph.inputs}, tokens)
        want = run(graph, feeds)[0]
        assert got.shape == want.shape and np.abs(got - want).max(initial=0) < 1e-5


def test_bytes_of_a_stack() -> None:
    graph = with_codes(mixture("concat"), [(2, 32), (3, 32), (4, 16), (3, 32), (1, 32)])
    const = next(c for v, c in graph.consts.items() if v.name == "w2")
    found = coded_stack(const)
    assert found is not None and [part.bits for part in found] == [2, 3, 4, 3, 1] and coded(const) is None
    assert stored_bytes(const) == sum(D * F * bits // 8 for bits in (2, 3, 4, 3, 1)) + 4 * D * (1 + 1 + 2 + 1 + 1)
