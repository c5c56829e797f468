"""Typed access to attributes: what the declaration says is what a reader gets, and anything else is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fretsaw.ir import Attr, Node, parse, sym
from fretsaw.ir.attrs import dim_of, float_of, int_of, ints_of, shape_of, str_of
from fretsaw.ir.types import TensorType


def node(text: str) -> Node:
    return parse(f"graph @g(%x: f32[B, 4]) -> (%y) {{\n  dim B in [1, 8]\n  %y: {text}\n}}").nodes[0]


def test_a_node_gives_its_attributes_by_type() -> None:
    cut = node("f32[B, 2] = slice(%x) {axis = 1, start = 0, end = 2}")
    assert (cut.int_attr("axis"), cut.int_attr("step"), cut.dim_attr("end")) == (1, 1, 2)
    assert node("f32[4, B] = transpose(%x) {perm = [1, 0]}").ints_attr("perm") == (1, 0)
    assert node("f32[B, 2, 2] = reshape(%x) {shape = [B, 2, 2]}").shape_attr("shape") == (sym("B"), 2, 2)
    norm = node("f32[B, 4] = rms_norm(%x) {eps = 1e-05}")
    assert norm.float_attr("eps") == 1e-5 and norm.out.type == TensorType("f32", (sym("B"), 4))
    assert node('f32[B, 4] = gelu(%x) {approximate = "tanh"}').str_attr("approximate") == "tanh"


@pytest.mark.parametrize(
    ("read", "value", "wanted"),
    [
        (int_of, 1.5, "an integer"), (int_of, None, "an integer"), (float_of, "1", "a number"), (str_of, 1, "a string"),
        (ints_of, (1, 2.0), "integers"), (ints_of, 3, "integers"), (dim_of, 0.5, "a dimension"),
        (shape_of, (2, "B"), "a shape"), (shape_of, None, "a shape"),
    ],
)  # fmt: skip
def test_another_type_is_named(read: Callable[..., object], value: Attr, wanted: str) -> None:
    with pytest.raises(TypeError, match=f"attribute n is .*, not {wanted}"):
        read({"n": value}, "n")


def test_defaults_and_nothing() -> None:
    assert int_of({}, "n", 3) == 3 and float_of({}, "n", 1) == 1.0 and str_of({}, "n", "a") == "a"
    assert ints_of({}, "n") == () and ints_of({"n": None}, "n") == ()
