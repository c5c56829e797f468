"""quantize_weights: which projections get codes, what they mean, every decline, and every refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from fretsaw.ir import Const, Graph, parse, run, to_text
from fretsaw.ir.errors import PassError, UsageError
from fretsaw.ir.quantized import coded, stored_bytes
from fretsaw.passes.kit.contract import hold
from fretsaw.passes.kit.cost import cost
from fretsaw.passes.quantize.grid import search, span
from fretsaw.passes.quantize.quantize_weights import quantize_weights

TEXT = """
graph @g(%x: f32[T, 64], %ids: i32[T]) -> (%logits) {
  phase packed
  dim T in [1, 64]
  const %table: f32[96, 64]
  const %up: f32[48, 64]
  const %down: f32[64, 48]
  const %gate: f32[4, 64]
  const %experts.up: f32[4, 64, 64]
  const %experts.down: f32[4, 64, 32]
  %e: f32[T, 64] = embedding(%ids, %table)  // embed
  %s: f32[T, 64] = add(%x, %e)
  %u: f32[T, 48] = linear(%s, %up)  // layers.0.up_proj
  %a: f32[T, 48] = silu(%u)
  %d: f32[T, 64] = linear(%a, %down)  // layers.1.down_proj
  %r: f32[T, 4] = linear(%d, %gate)  // layers.1.gate
  %i: i64[T, 2], %w: f32[T, 2] = router(%r) {k = 2, scoring = "softmax"}
  %m: f32[T, 64] = experts(%d, %i, %w, %experts.up, %experts.down) {activation = "silu"}
  %logits: f32[T, 96] = linear(%m, %table)  // lm_head
}
"""


def read(text: str = TEXT) -> Graph:
    return parse(text.strip(), seed=0)


def const(graph: Graph, name: str) -> Const:
    return next(c for v, c in graph.consts.items() if v.name == name)


def test_projections_get_codes_and_the_rest_stays() -> None:
    before = read()
    outcome = quantize_weights.configured({"format": "u4_g16", "head": "u8_g32"}).run(before)
    formats = {v.name: None if (c := coded(k)) is None else c.format for v, k in outcome.graph.consts.items()}
    assert formats == {"table": "u8_g32", "up": "u4_g16", "down": "u4_g16", "gate": None, "experts.up": None,
                       "experts.down": None}  # fmt: skip
    assert [n.loc.module for n in outcome.hits] == ["layers.0.up_proj", "layers.1.down_proj", "lm_head"]
    assert [(d.at.loc.module, d.reason) for d in outcome.declines] == [
        ("layers.1.gate", "it chooses experts: a router stays exact")
    ]
    again = quantize_weights.configured({"format": "u4_g16"}).run(outcome.graph)
    assert again.graph is outcome.graph and {d.reason for d in again.declines if d.at.op == "linear"} >= {
        "its weight has codes"
    }


@pytest.mark.parametrize("method", ["nearest", "search"])
def test_the_weights_are_those_of_the_grid(method: str) -> None:
    before = read()
    after = quantize_weights.configured({"format": "u4_g16", "method": method}).run(before).graph
    w = const(before, "up").load().reshape(48, 4, 16)
    grid = {"nearest": span, "search": search}[method](w, 4)
    assert np.array_equal(const(after, "up").load(), grid.values(grid.codes(w, 4)).reshape(48, 64))
    feeds = {"x": np.ones((3, 64), np.float32), "ids": np.array([0, 95, 7], np.int32)}
    want = {**before.consts, **{v: Const.of(c.load()) for v, c in after.consts.items()}}
    assert np.array_equal(run(after, feeds)[0], run(replace(before, consts=want), feeds)[0])


def test_bytes_are_counted_with_scales_and_minima() -> None:
    before = read()
    after = quantize_weights.configured({"format": "u4_g16", "head": "u8_g32"}).run(before).graph
    assert stored_bytes(const(after, "up")) == 48 * 64 // 2 + 48 * 4 * 4
    saved = (4 * 48 * 64 - (48 * 64 // 2 + 48 * 4 * 4)) * 2 + 4 * 96 * 64 - (96 * 64 + 96 * 2 * 4)
    assert cost(before).weight_bytes - cost(after).weight_bytes == saved
    assert cost(before).parameters == cost(after).parameters


def test_the_text_reads_back() -> None:
    after = quantize_weights.configured({"format": "u2_g16", "head": "keep"}).run(read()).graph
    assert "const %up: f32[48, 64] = dequantize((u8[48, 64] data(sha256" in to_text(after)
    assert parse(to_text(after), {v.name: c for v, c in after.consts.items()}) == after


@pytest.mark.parametrize(
    ("options", "hits", "reason"),
    [
        ({"head": "keep"}, 2, "head=keep"),
        ({"keep": "up_proj"}, 2, "keep=up_proj"),
        ({"layers": "1"}, 2, "another layer"),
    ],
)
def test_what_the_options_spare(options: dict[str, object], hits: int, reason: str) -> None:
    outcome = quantize_weights.configured({"format": "u4_g16", **options}).run(read())
    assert len(outcome.hits) == hits and reason in {d.reason for d in outcome.declines}
    hold("quantize_weights", quantize_weights.configured({"format": "u4_g16", **options}).sites, read(), outcome,
         requested=True)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT, "its 48 input features are no multiple of groups of 32"),
        (TEXT.replace("const %up: f32[48, 64]\n", "").replace("%ids: i32[T])", "%ids: i32[T], %up: f32[48, 64])"),
         "its weight is computed"),
    ],
)  # fmt: skip
def test_a_projection_that_cannot_be_coded_ends_the_compile(text: str, message: str) -> None:
    asked = quantize_weights.configured({"format": "u4_g32"})
    before = read(text)
    with pytest.raises(PassError, match="quantize_weights") as caught:
        hold("quantize_weights", asked.sites, before, asked.run(before), requested=True)
    assert message in str(caught.value)


def test_weights_that_no_code_is_for() -> None:
    before = read()
    w = const(before, "down").load().copy()
    w[3, 5] = np.inf
    broken = {v: Const.of(w, source="model.down") if v.name == "down" else c for v, c in before.consts.items()}
    with pytest.raises(PassError) as caught:
        quantize_weights.configured({"format": "u4_g16"}).run(replace(before, consts=broken))
    assert "the weight model.down cannot be coded: it holds NaN or infinity" in str(caught.value)
    assert "layers.1.down_proj" in str(caught.value)


@pytest.mark.parametrize("format", ["u3_g32", "u4_g12", "u2_g8", "u4", "i4_g32", "u4_g0", "u4_g2048", ""])
def test_formats_that_do_not_exist(format: str) -> None:
    with pytest.raises(UsageError, match="uBITS_gGROUP"):
        quantize_weights.configured({"format": format})
    assert cast("object", quantize_weights.configured({"head": "keep"})) is not None
