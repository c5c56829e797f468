"""drop_noops: every spelling of nothing goes, near misses stay, outputs keep their names."""

from __future__ import annotations

import pytest

from fretsaw.ir import run, to_text
from fretsaw.passes.api import apply
from fretsaw.passes.canonical.drop_noops import drop_noops
from tests.passes.kit import feed, golden, read, untouched

BEFORE = """
graph @g(%x: f32[B, 4]) -> (%y) {
  dim B in [1, 64]
  const %zero: f32[] = data([0.0])
  const %one: f32[] = data([1.0])
  const %ones: f32[4] = data([1.0, 1.0, 1.0, 1.0])
  %a: f32[B, 4] = reshape(%x) {shape = [B, 4]}
  %b: f32[B, 4] = transpose(%a) {perm = [0, 1]}
  %c: f32[B, 4] = expand(%b) {shape = [B, 4]}
  %d: f32[B, 4] = slice(%c) {axis = 1, end = 4, start = 0}
  %e: f32[B, 4] = cast(%d) {dtype = "f32"}
  %none: f32[B, 0] = slice(%x) {axis = 1, end = 4, start = 4}
  %f: f32[B, 4] = concat(%e, %none) {axis = 1}
  %g: f32[B, 4] = add(%zero, %f)
  %h: f32[B, 4] = sub(%g, %zero)
  %i: f32[B, 4] = mul(%h, %ones)
  %j: f32[B, 4] = div(%i, %one)
  %k: f32[B, 4] = pow(%j, %one)
  %l: f32[B, 4] = neg(%k)
  %m: f32[B, 4] = neg(%l)
  %n: f32[B, 4] = clamp(%m)
  %o: f32[B, 4] = abs(%n)
  %p: f32[B, 4] = abs(%o)
  %y: f32[B, 4] = neg(%p)
}
"""
AFTER = """
graph @g(%x: f32[B, 4]) -> (%y) {
  dim B in [1, 64]
  %o: f32[B, 4] = abs(%x)
  %y: f32[B, 4] = neg(%o)
}
"""


def test_golden() -> None:
    golden(drop_noops, BEFORE, AFTER)


def test_bits() -> None:
    before = read(BEFORE)
    after, _ = apply(drop_noops, before)
    inputs = feed(before, 0)
    assert (run(before, inputs)[0] == run(after, inputs)[0]).all()


@pytest.mark.parametrize(
    "line",
    [
        "%y: f32[4, 4] = transpose(%x) {perm = [1, 0]}",
        "%y: f32[4, 4] = sub(%zero, %x)",
        "%y: f32[4, 4] = div(%one, %x)",
        "%y: f32[4, 4] = add(%x, %one)",
        "%y: f32[4, 4] = pow(%one, %x)",
        "%y: f32[4, 4] = clamp(%x) {min = 0.0}",
        "%a: f32[4, 4] = abs(%x)\n %y: f32[4, 4] = relu(%a)",
        "%y: f32[4, 4] = concat(%x, %x) {axis = 0}",
        "%y: f32[3, 4, 4] = mul(%x, %wide)",
        '%y: f64[4, 4] = cast(%x) {dtype = "f64"}',
    ],
)
def test_near_misses_stay(line: str) -> None:
    line = line.replace("f32[4, 4] = concat", "f32[8, 4] = concat")
    consts = "const %zero: f32[] = data([0.0])\n const %one: f32[] = data([1.0])\n"
    consts += " const %wide: f32[3, 1, 1] = data([1, 1, 1])"
    assert untouched(drop_noops, f"graph @g(%x: f32[4, 4]) -> (%y) {{\n {consts}\n {line}\n}}") == []


def test_an_output_passes_its_name_on() -> None:
    graph = read("graph @g(%x: f32[4]) -> (%y) {\n %a: f32[4] = neg(%x)\n %y: f32[4] = reshape(%a) {shape = [4]}\n}")
    after, _ = apply(drop_noops, graph)
    assert to_text(after) == "graph @g(%x: f32[4]) -> (%y) {\n  %y: f32[4] = neg(%x)\n}"


@pytest.mark.parametrize(
    "text",
    [
        "graph @g(%x: f32[4]) -> (%y) {\n %y: f32[4] = reshape(%x) {shape = [4]}\n}",
        "graph @g(%x: f32[4]) -> (%a, %y) {\n %a: f32[4] = neg(%x)\n %y: f32[4] = reshape(%a) {shape = [4]}\n}",
    ],
)
def test_an_output_that_is_another_name_of_something_stays(text: str) -> None:
    assert untouched(drop_noops, text) == [
        ("a graph output must keep its name, and its source has one of its own", "y")
    ]
