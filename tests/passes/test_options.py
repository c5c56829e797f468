"""Options: every type from strings and from TOML values, what is refused, and how it says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest

from fretsaw.ir.errors import PassError, UsageError
from fretsaw.passes.kit.options import default_of, describe, fill, parse_assignments, plain


@dataclass(frozen=True)
class Options:
    strength: float = 1.0
    rank: int = 4
    exact: bool = False
    mode: Literal["rows", "columns"] = "rows"
    layers: tuple[int, ...] = ()
    name: str = "x"
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is at least 1, not {self.rank}")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("strength", "2", 2.0), ("strength", "1e-3", 1e-3), ("rank", "1", 1), ("exact", "yes", True),
        ("exact", "False", False), ("mode", "columns", "columns"), ("layers", "1,3", (1, 3)), ("layers", "", ()),
        ("name", "a b", "a b"), ("limit", "none", None), ("limit", "0.5", 0.5),
    ],
)  # fmt: skip
def test_strings_are_parsed(key: str, text: str, value: object) -> None:
    made = fill("p", Options(), {key: text})
    assert getattr(made, key) == value and type(getattr(made, key)) is type(value)


@pytest.mark.parametrize(
    ("key", "value", "result"),
    [("strength", 2, 2.0), ("layers", [1, 3], (1, 3)), ("exact", True, True), ("limit", None, None), ("rank", 7, 7)],
)
def test_typed_values_are_taken(key: str, value: object, result: object) -> None:
    made = fill("p", Options(), {key: value})
    assert getattr(made, key) == result and type(getattr(made, key)) is type(result)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("strength", "much", 'option strength of p takes a number, not "much"\n  hint  its default is 1.0'),
        ("rank", "2.5", 'option rank of p takes an integer, not "2.5"\n  hint  its default is 4'),
        ("rank", True, "option rank of p takes an integer, not true\n  hint  its default is 4"),
        ("rank", 2.5, "option rank of p takes an integer, not 2.5\n  hint  its default is 4"),
        ("exact", "maybe", 'option exact of p takes true or false, not "maybe"\n  hint  its default is false'),
        ("exact", 1, "option exact of p takes true or false, not 1\n  hint  its default is false"),
        ("mode", "both", 'option mode of p takes one of rows, columns, not "both"\n  hint  its default is rows'),
        ("layers", "1,x", 'option layers of p takes integers separated by commas, not "1,x"\n  hint  its default is '
                          "(empty)"),
        ("layers", 3, "option layers of p takes integers separated by commas, not 3\n  hint  its default is (empty)"),
        ("limit", "x", 'option limit of p takes a number or none, not "x"\n  hint  its default is none'),
        ("rank", 0, "options of p: rank is at least 1, not 0"),
    ],
)  # fmt: skip
def test_unfit_values_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(UsageError) as error:
        fill("p", Options(), {key: value})
    assert str(error.value) == f"UsageError: {message}"


def test_unknown_options_name_the_near_one_and_all() -> None:
    with pytest.raises(UsageError) as error:
        fill("fold_x", Options(), {"strenght": 2})
    assert str(error.value) == (
        "UsageError: fold_x has no option strenght\n"
        "  hint  did you mean strength? it has: strength (a number, 1.0), rank (an integer, 4), exact (true or false, "
        "false), mode (one of rows, columns, rows), layers (integers separated by commas, (empty)), name (a text, x), "
        "limit (a number or none, none)"
    )
    with pytest.raises(UsageError) as error:
        fill("dce", None, {"a": 1})
    assert str(error.value) == "UsageError: dce takes no options, got a\n  hint  see `fretsaw passes dce`"


def test_assignments() -> None:
    assert parse_assignments("layers=1,3,strength=2") == {"layers": "1,3", "strength": "2"}
    assert parse_assignments("name=a=b") == {"name": "a=b"}
    for text, message in [
        ("strength", 'option "strength" has no value\n  hint  write NAME:option=value,option=value'),
        ("a=1,a=2", "option a is given twice"),
        ("=2", '"=2" names no option'),
    ]:
        with pytest.raises(UsageError) as error:
            parse_assignments(text)
        assert str(error.value) == f"UsageError: {message}"


def test_plain_and_described() -> None:
    assert plain(Options(layers=(2,))) == {
        "strength": 1.0, "rank": 4, "exact": False, "mode": "rows", "layers": (2,), "name": "x", "limit": None,
    }  # fmt: skip
    assert plain(None) == {} and describe(None) == []
    assert default_of("p", Options) == Options()


def test_declarations_that_no_command_line_could_fill() -> None:
    @dataclass
    class Loose:
        a: int = 1

    @dataclass(frozen=True)
    class NoDefault:
        a: int

    @dataclass(frozen=True)
    class Odd:
        table: dict[str, int] = field(default_factory=dict)

    for options, message in [
        (Loose, "options of p must be frozen: @dataclass(frozen=True)"),
        (NoDefault, "option a of p has no default"),
        (Odd, "option table of p has the type dict, which no option can have"),
        (3, "options of p must be a dataclass, not int"),
    ]:
        with pytest.raises(PassError) as error:
            default_of("p", options)
        assert str(error.value) == f"PassError: {message}"


@dataclass(frozen=True)
class Shape:
    kind: str = ""

    def variant(self, given: Mapping[str, object]) -> Shape:
        if given.get("kind", self.kind) != "circle":
            raise UsageError("a shape is a circle", hint="kind=circle")
        return Circle()


@dataclass(frozen=True)
class Circle(Shape):
    kind: str = "circle"
    radius: float = 1.0


def test_an_option_that_chooses_the_others() -> None:
    assert fill("draw", Shape(), {"kind": "circle", "radius": "2"}) == Circle(radius=2.0)
    for given, message in [
        ({}, "UsageError: a shape is a circle\n  hint  kind=circle"),
        ({"kind": "square", "side": 1}, "UsageError: a shape is a circle\n  hint  kind=circle"),
        ({"kind": "circle", "side": 1}, "UsageError: draw has no option side\n  hint  it has: kind (a text, circle), "
                                        "radius (a number, 1.0)"),
    ]:  # fmt: skip
        with pytest.raises(UsageError) as error:
            fill("draw", Shape(), given)
        assert str(error.value) == message
