"""cancel_transposes: chains cancel, transposes sink to each other, nothing else moves."""

from __future__ import annotations

import pytest

from fretsaw.ir import run, to_text
from fretsaw.passes.api import apply
from fretsaw.passes.canonical.cancel_transposes import cancel_transposes
from tests.passes.kit import feed, golden, read, untouched

BEFORE = """
graph @g(%x: f32[B, S, 16]) -> (%y) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %w: f32[8]
  const %two: f32[] = data([2.0])
  %r: f32[B, S, 2, 8] = reshape(%x) {shape = [B, S, 2, 8]}
  %t: f32[B, 2, S, 8] = transpose(%r) {perm = [0, 2, 1, 3]}
  %n: f32[B, 2, S, 8] = rms_norm(%t, %w) {eps = 1e-06}
  %a: f32[B, 2, S, 4] = slice(%n) {axis = 3, end = 4, start = 0}
  %b: f32[B, 2, S, 4] = slice(%n) {axis = 3, end = 8, start = 4}
  %c: f32[B, 2, S, 8] = concat(%b, %a) {axis = 3}
  %m: f32[B, 2, S, 8] = mul(%two, %c)
  %s: f32[B, 2, S, 8] = softmax(%m) {axis = 2}
  %y: f32[B, S, 2, 8] = transpose(%s) {perm = [0, 2, 1, 3]}
}
"""
AFTER = """
graph @g(%x: f32[B, S, 16]) -> (%y) {
  dim B in [1, 64]
  dim S in [1, 64]
  const %w: f32[8]
  const %two: f32[] = data([2.0])
  %r: f32[B, S, 2, 8] = reshape(%x) {shape = [B, S, 2, 8]}
  %n.t: f32[B, S, 2, 8] = rms_norm(%r, %w) {eps = 1e-06}  // <sink_transpose>
  %a.t: f32[B, S, 2, 4] = slice(%n.t) {axis = 3, end = 4, start = 0}  // <sink_transpose>
  %b.t: f32[B, S, 2, 4] = slice(%n.t) {axis = 3, end = 8, start = 4}  // <sink_transpose>
  %c.t: f32[B, S, 2, 8] = concat(%b.t, %a.t) {axis = 3}  // <sink_transpose>
  %m.t: f32[B, S, 2, 8] = mul(%two, %c.t)  // <sink_transpose>
  %y: f32[B, S, 2, 8] = softmax(%m.t) {axis = 1}  // <sink_transpose>
}
"""


def graph(*lines: str, inputs: str = "%x: f32[2, 3, 4]", outputs: str = "%y") -> str:
    return "\n".join([f"graph @g({inputs}) -> ({outputs}) {{", *lines, "}"])


def test_golden() -> None:
    golden(cancel_transposes, BEFORE, AFTER)


def test_bits() -> None:
    before = read(BEFORE)
    after, _ = apply(cancel_transposes, before)
    inputs = feed(before, 1)
    assert (run(before, inputs)[0] == run(after, inputs)[0]).all()


def test_perms_compose() -> None:
    text = graph(
        "%a: f32[3, 4, 2] = transpose(%x) {perm = [1, 2, 0]}", "%y: f32[4, 2, 3] = transpose(%a) {perm = [1, 2, 0]}"
    )
    before = read(text)
    after, _ = apply(cancel_transposes, before)
    assert [n.attr("perm") for n in after.nodes] == [(2, 0, 1)]
    inputs = feed(before, 0)
    assert (run(before, inputs)[0] == run(after, inputs)[0]).all()


def test_moving_axes_of_length_one_is_a_reshape() -> None:
    text = graph("%y: f32[3, 1, 4] = transpose(%x) {perm = [1, 0, 2]}", inputs="%x: f32[1, 3, 4]")
    assert [n.op for n in apply(cancel_transposes, read(text))[0].nodes] == ["reshape"]


def test_reshapes_compose_and_cancel() -> None:
    text = graph(
        "%a: f32[6, 4] = reshape(%x) {shape = [6, 4]}", "%b: f32[2, 12] = reshape(%a) {shape = [2, 12]}",
        "%c: f32[2, 3, 4] = reshape(%b) {shape = [2, 3, 4]}", "%y: f32[2, 3, 4] = neg(%c)",
    )  # fmt: skip
    assert to_text(apply(cancel_transposes, read(text))[0]).splitlines()[1] == "  %y: f32[2, 3, 4] = neg(%x)"


@pytest.mark.parametrize(
    ("lines", "inputs"),
    [
        (
            ["%e: f32[2, 3, 4] = expand(%x) {shape = [2, 3, 4]}", "%y: f32[2, 3, 4] = mul(%e, %z)"],
            "%x: f32[3, 1], %z: f32[2, 3, 4]",
        ),
        (
            ["%e: f32[2, 3, 4] = expand(%x) {shape = [2, 3, 4]}", "%y: f32[2, 3, 3] = matmul(%e, %z)"],
            "%x: f32[1, 3, 4], %z: f32[2, 4, 3]",
        ),
    ],
)  # fmt: skip
def test_expand_into_a_broadcasting_reader_goes(lines: list[str], inputs: str) -> None:
    before = read(graph(*lines, inputs=inputs))
    after, _ = apply(cancel_transposes, before)
    assert [n.op for n in after.nodes] == [before.nodes[1].op]
    fed = feed(before, 0)
    assert (run(before, fed)[0] == run(after, fed)[0]).all()


@pytest.mark.parametrize(
    ("lines", "inputs", "reason", "at"),
    [
        (
            ["%t: f32[2, 4, 3] = transpose(%x) {perm = [0, 2, 1]}", "%y: f32[2, 4, 3] = rms_norm(%t) {eps = 1e-06}"],
            "%x: f32[2, 3, 4]", "the transpose moves the axis that is normalized", "t",
        ),
        (
            ["%t: f32[3, 2, 4] = transpose(%x) {perm = [1, 0, 2]}", "%y: f32[3, 2, 4] = add(%t, %z)"],
            "%x: f32[2, 3, 4], %z: f32[3, 2, 4]", "the operands are not transposed alike", "t",
        ),
        (
            ["%e: f32[2, 3] = expand(%x) {shape = [2, 3]}", "%y: f32[2, 3] = mul(%e, %x)"],
            "%x: f32[3]", "it gives the result its shape", "e",
        ),
        (
            ["%e: f32[2, 3] = expand(%x) {shape = [2, 3]}", "%y: f32[2, 2] = matmul(%e, %z)"],
            "%x: f32[3], %z: f32[3, 2]", "matmul needs two axes", "e",
        ),
        (
            ["%e: f32[5, 2, 3] = expand(%x) {shape = [5, 2, 3]}", "%y: f32[5, 2, 2] = matmul(%e, %z)"],
            "%x: f32[2, 3], %z: f32[3, 2]", "it gives the result its shape", "e",
        ),
        (
            ["%e: f32[2, 3] = expand(%x) {shape = [2, 3]}", "%y: f32[2, 2] = matmul(%e, %z)"],
            "%x: f32[1, 3], %z: f32[3, 2]", "it widens an axis of the product", "e",
        ),
    ],
)  # fmt: skip
def test_declines(lines: list[str], inputs: str, reason: str, at: str) -> None:
    assert untouched(cancel_transposes, graph(*lines, inputs=inputs)) == [(reason, at)]
