"""drop_casts: golden text, the table of widenings against NumPy, what rounds stays."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fretsaw.ir import DType, run
from fretsaw.ir.types import numpy_dtype
from fretsaw.passes.api import apply
from fretsaw.passes.canonical.drop_casts import WIDER, drop_casts
from tests.passes.kit import feed, golden, read, untouched

BEFORE = """
graph @g(%x: f16[B, 4], %i: i8[B, 4]) -> (%y, %z, %w) {
  dim B in [1, 64]
  %a: f32[B, 4] = cast(%x) {dtype = "f32"}
  %b: f64[B, 4] = cast(%a) {dtype = "f64"}
  %c: f16[B, 4] = cast(%b) {dtype = "f16"}
  %y: f16[B, 4] = neg(%c)
  %z: bf16[B, 4] = cast(%a) {dtype = "bf16"}
  %j: i64[B, 4] = cast(%i) {dtype = "i64"}
  %w: f32[B, 4] = cast(%j) {dtype = "f32"}
}
"""
AFTER = """
graph @g(%x: f16[B, 4], %i: i8[B, 4]) -> (%y, %z, %w) {
  dim B in [1, 64]
  %y: f16[B, 4] = neg(%x)
  %z: bf16[B, 4] = cast(%x) {dtype = "bf16"}  // <drop_casts>
  %w: f32[B, 4] = cast(%i) {dtype = "f32"}  // <drop_casts>
}
"""
SAMPLES: dict[DType, list[float]] = {
    "bool": [0, 1], "i8": [-128, -1, 0, 127], "u8": [0, 1, 254, 255], "i32": [-(2**31), -1, 0, 2**24 + 1, 2**31 - 1],
    "i64": [-(2**63), 0, 2**53 + 1, 2**63 - 1], "f16": [-65504, 0.1, 6e-8, 1 / 3], "f32": [-3e38, 0.1, 1e-45, 1 / 3],
    "f64": [1e300, 0.1, 5e-324, 1 / 3],
}  # fmt: skip


def test_golden() -> None:
    golden(drop_casts, BEFORE, AFTER)


def test_bits() -> None:
    graph = read(
        BEFORE.replace("-> (%y, %z, %w)", "-> (%y, %w)").replace("  %z: bf16", "  %z: f16").replace("bf16", "f16")
    )
    after, _ = apply(drop_casts, graph)
    assert after is not graph
    for seed in range(3):
        inputs = feed(graph, seed)
        inputs["x"] = np.random.default_rng(seed).standard_normal((2, 4)).astype(np.float16)
        for a, b in zip(run(graph, inputs), run(after, inputs), strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)


@pytest.mark.parametrize(("first", "middle"), list(itertools.permutations(SAMPLES, 2)))
def test_the_table_of_widenings(first: DType, middle: DType) -> None:
    """A type is wider when extreme and awkward values of the first are the same numbers in it, by NumPy's casts."""
    values = np.array(SAMPLES[first], numpy_dtype(first))
    with np.errstate(all="ignore"):
        same = values.astype(numpy_dtype(middle)).tolist() == values.tolist()
    assert (middle in WIDER[first]) == same


def test_bf16_holds_what_its_eight_bits_can() -> None:
    """bf16 is the upper half of f32: every integer of eight bits survives it, and not every one of nine."""
    whole = np.arange(-128, 256).astype(np.float32)
    assert np.array_equal((whole.view(np.uint32) & 0xFFFF0000).view(np.float32), whole)
    assert "bf16" in WIDER["i8"] and "bf16" in WIDER["u8"] and "bf16" not in WIDER["f16"]
    assert (np.float32(257).view(np.uint32) & 0xFFFF) != 0 and "bf16" not in WIDER["i32"]


@given(chain=st.lists(st.sampled_from([d for d in SAMPLES if d[0] in "f"]), min_size=2, max_size=5))
def test_chains_keep_their_bits_and_come_to_rest(chain: list[DType]) -> None:
    at, lines = "x", []
    for i, dtype in enumerate(chain):
        lines.append(f'%v{i}: {dtype}[4] = cast(%{at}) {{dtype = "{dtype}"}}')
        at = f"v{i}"
    graph = read(f"graph @g(%x: f16[4]) -> (%{at}) {{\n " + "\n ".join(lines) + "\n}", dtype="f32")
    after, _ = apply(drop_casts, graph)
    x = np.array([1 / 3, -65504, 6e-8, 1.0], np.float16)
    assert np.array_equal(run(graph, {"x": x})[0], run(after, {"x": x})[0])
    assert len(after.nodes) <= len(graph.nodes) and apply(drop_casts, after)[0] is after


def test_a_detour_that_rounds_stays() -> None:
    lines = ('%a: f16[4] = cast(%x) {dtype = "f16"}', '%y: f32[4] = cast(%a) {dtype = "f32"}')
    text = "graph @g(%x: f32[4]) -> (%y) {\n " + "\n ".join(lines) + "\n}"
    assert untouched(drop_casts, text) == [("the detour through f16 does not keep every value of f32", "a")]
