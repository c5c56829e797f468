"""Router and experts become five launches, whose result is the reference's; what cannot be lowered is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fretsaw.backends.program.plan import plan
from fretsaw.backends.program.steps import Plan, Tensor
from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.backends.tvm.registry import build_kernel
from fretsaw.ir import Graph, Value, parse
from fretsaw.ir.dims import evaluate
from fretsaw.ir.errors import LoweringError
from fretsaw.ir.interp import run
from tests.backends.kernels.kernel_run import Built

E, D, F, K = 5, 19, 12, 2


def mixture(router: str = "{k = 2}", experts: str = "", biases: bool = False, extra: str = "") -> Graph:
    more = ", %b1, %b2" if biases else ""
    return parse(
        f"""graph @g(%x: f32[T, {D}], %logits: f32[T, {E}]) -> (%y) {{
  phase packed
  dim T in [1, 1024]
  const %w1: f32[{E}, {2 * F}, {D}]
  const %w2: f32[{E}, {D}, {F}]
  const %b1: f32[{E}, {2 * F}]
  const %b2: f32[{E}, {D}]
  %index: i64[T, {K}], %weight: f32[T, {K}] = router(%logits) {router}
  %sum: f32[T, {D}] = experts(%x, %index, %weight, %w1, %w2{more}) {experts}
  %y: f32[T, {D}] = add(%x, %sum)  // layer
{extra}}}""",
        seed=1,
    )


def execute(made: Plan, inputs: dict[Value, np.ndarray], tokens: int) -> np.ndarray:
    """Run the launches one after another on arrays."""
    env = dict(inputs)
    for launch in made.launches:
        arrays = []
        for arg in launch.inputs:
            assert isinstance(arg, (Value, Tensor))
            arrays.append(env[arg] if isinstance(arg, Value) else arg.make())
        for out in launch.outputs:
            shape = [evaluate(d, {"T": tokens}) for d in out.tensor.shape]
            arrays.append(np.zeros(shape, {"f32": np.float32, "i32": np.int32}[out.tensor.dtype]))
        after = Built(build_kernel(launch.spec, V3))(*arrays)
        env.update(zip(launch.outputs, after[-len(launch.outputs) :], strict=True))
    return env[made.outputs[0]]


def test_five_launches_with_the_residual_inside() -> None:
    text = re.sub(r"_[0-9a-f]{10}", "", plan(mixture(), TvmOptions()).text())
    assert (
        text
        == """\
%index.i32, %weight = route(%logits)
%sum.offsets.t1, %sum.order.t2 = sort(%index.i32)
%sum.inner.t3 = grouped(%x, %sum.offsets.t1, %sum.order.t2, $w1)
%sum.outer.t4 = grouped(%sum.inner.t3, %sum.offsets.t1, %sum.order.t2, $w2)
%y = combine(%sum.outer.t4, %weight, %x)"""
    )


@pytest.mark.parametrize(
    ("router", "experts", "biases"),
    [
        ("{k = 2, normalize = true}", '{act = "relu"}', False),
        ('{k = 2, softmax = "after"}', '{act = "clamped_swiglu", layout = "interleaved", limit = 0.9}', True),
        ("{k = 2}", '{act = "gelu", layout = "interleaved"}', False),
        ("{k = 2}", '{act = "silu"}', True),
    ],
)
def test_the_plan_computes_the_reference(router: str, experts: str, biases: bool) -> None:
    graph, rng = mixture(router, experts, biases), np.random.default_rng(0)
    x, logits = rng.standard_normal((11, D), np.float32), rng.standard_normal((11, E), np.float32)
    got = execute(plan(graph, TvmOptions()), dict(zip(graph.inputs, (x, logits), strict=True)), 11)
    (want,) = run(graph, {"x": x, "logits": logits})
    # Two chains of at most 19 products in f32, against sums in another order.
    np.testing.assert_allclose(got, want, rtol=0, atol=4e-6 * np.abs(want).max())


def test_an_index_with_other_readers_is_refused() -> None:
    graph = mixture(extra=f"  %other: i64[T, {K}] = add(%index, %index)\n")
    with pytest.raises(LoweringError, match=r"index must be read by experts alone .* is read by %other \(add\)"):
        plan(graph, TvmOptions())


def test_an_index_from_elsewhere_is_refused() -> None:
    text = f"""graph @g(%x: f32[T, {D}], %index: i64[T, {K}], %weight: f32[T, {K}]) -> (%y) {{
  phase packed
  dim T in [1, 1024]
  const %w1: f32[{E}, {2 * F}, {D}]
  const %w2: f32[{E}, {D}, {F}]
  %y: f32[T, {D}] = experts(%x, %index, %weight, %w1, %w2)
}}"""
    with pytest.raises(LoweringError, match="index must come from a router .* comes from an input"):
        plan(parse(text, seed=1), TvmOptions())
