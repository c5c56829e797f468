"""Options of passes: frozen dataclasses with a default for every field, filled from strings or typed values.

A field is a bool, int, float, str, a ``Literal`` of strings or numbers, a tuple of one of these (``tuple[int, ...]``),
or one of these ``| None``. That covers what a command line and a TOML file can say.

Where one option decides which others there are, the dataclass has a method ``variant(given) -> options``: the options,
with defaults, that the given values choose; they are the ones that are filled.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, Protocol, Union, runtime_checkable

from fretsaw.ir.errors import PassError, UsageError

Plain = bool | int | float | str | tuple["Plain", ...] | None
SIMPLE: Mapping[type, str] = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@runtime_checkable
class Varied(Protocol):
    """Options of which one decides which others there are."""

    def variant(self, given: Mapping[str, object]) -> object:
        """The options with defaults that ``given`` chooses.

        Raises:
            UsageError: there are none such.
        """


class _Refused(Exception):
    """A value does not fit a type."""


@dataclass(frozen=True)
class OptionInfo:
    """One option for people: its name, what it takes, the value that it has now."""

    name: str
    takes: str
    value: Plain


def check_declared(name: str, options: object) -> None:
    """Refuse options that could not be filled from a command line.

    Raises:
        PassError: not a frozen dataclass, a field without default or of an unsupported type (a mistake in the pass).
    """
    if isinstance(options, type) or not is_dataclass(options):
        raise PassError(f"options of {name} must be a dataclass, not {type(options).__name__}")
    if not getattr(type(options), "__dataclass_params__").frozen:  # noqa: B009  mypy knows no such attribute
        raise PassError(f"options of {name} must be frozen: @dataclass(frozen=True)")
    hints = typing.get_type_hints(type(options))
    for field in fields(options):
        if field.default is MISSING and field.default_factory is MISSING:
            raise PassError(f"option {field.name} of {name} has no default")
        try:
            takes(hints[field.name])
        except _Refused as error:
            raise PassError(f"option {field.name} of {name} has the type {error}, which no option can have") from None


def default_of(name: str, options: object) -> object:
    """An instance with the defaults, from the class of the options or an instance of it; checked."""
    if isinstance(options, type) and is_dataclass(options):
        missing = [f.name for f in fields(options) if f.default is MISSING and f.default_factory is MISSING]
        if missing:
            raise PassError(f"option {missing[0]} of {name} has no default")
        made: object = options()
        check_declared(name, made)
        return made
    check_declared(name, options)
    return options


def fill(name: str, options: object | None, given: Mapping[str, object]) -> object | None:
    """``options`` with the values of ``given``, strings parsed by the types of the fields.

    Raises:
        UsageError: unknown option or unfit value; names pass, option, value and what is allowed.
    """
    if isinstance(options, Varied):
        options = options.variant(given)
    if not given:
        return options
    if options is None:
        raise UsageError(f"{name} takes no options, got {', '.join(given)}", hint=f"see `fretsaw passes {name}`")
    hints = typing.get_type_hints(type(options))
    known = {info.name: info for info in describe(options)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            allowed = ", ".join(f"{i.name} ({i.takes}, {show(i.value)})" for i in known.values())
            guess = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"{name} has no option {key}", hint=f"{guess}it has: {allowed}")
        try:
            values[key] = convert(value, hints[key])
        except _Refused:
            raise UsageError(
                f"option {key} of {name} takes {known[key].takes}, not {_quoted(value)}",
                hint=f"its default is {show(known[key].value)}",
            ) from None
    try:
        return replace(options, **values)  # type: ignore[type-var]
    except (ValueError, UsageError) as error:  # raised by the dataclass' own __post_init__
        if isinstance(error, UsageError):
            raise UsageError(f"options of {name}: {error.what}", where=error.where, hint=error.hint) from None
        raise UsageError(f"options of {name}: {error}") from None


def describe(options: object | None) -> list[OptionInfo]:
    """The options in the order of their declaration; empty for None."""
    if options is None:
        return []
    hints = typing.get_type_hints(type(options))
    assert is_dataclass(options)
    return [OptionInfo(f.name, takes(hints[f.name]), getattr(options, f.name)) for f in fields(options)]


def plain(options: object | None) -> dict[str, Plain]:
    """Names and values, for the ledger and the manifest."""
    return {info.name: info.value for info in describe(options)}


def show(value: Plain) -> str:
    """A value as a command line says it: ``true``, ``0.5``, ``1,3``, ``none``."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(show, value)) or "(empty)"
    return str(value)


def parse_assignments(text: str) -> dict[str, str]:
    """``k=v,k=v`` as a mapping. A piece without ``=`` belongs to the value before it: ``layers=1,3,strength=2``.

    Raises:
        UsageError: no ``=`` at all, an empty name, or a name twice.
    """
    out: dict[str, str] = {}
    last = ""
    for piece in text.split(","):
        key, equals, value = piece.partition("=")
        if not equals and not last:
            raise UsageError(f"option {_quoted(piece)} has no value", hint="write NAME:option=value,option=value")
        if not equals:
            out[last] += f",{piece}"
            continue
        last = key.strip()
        if not last or last in out:
            raise UsageError(f"option {last} is given twice" if last else f"{_quoted(piece)} names no option")
        out[last] = value
    return out


def takes(hint: Any) -> str:
    """What a field of this type takes, in words."""
    if hint in SIMPLE:
        return SIMPLE[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis and args[0] in SIMPLE:
        return f"{SIMPLE[args[0]].removeprefix('an ').removeprefix('a ')}s separated by commas"
    inner = [a for a in args if a is not type(None)]
    if origin in (Union, types.UnionType) and len(inner) == 1 and len(args) == 2:
        return f"{takes(inner[0])} or none"
    raise _Refused(getattr(hint, "__name__", str(hint)))


def convert(value: object, hint: Any) -> Any:
    """``value`` as the type ``hint``; strings are parsed, other values must fit already."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        found = next((a for a in args if value == a or (isinstance(value, str) and value == str(a))), None)
        if found is None:
            raise _Refused
        return found
    if origin is tuple:
        items = [v for v in value.split(",") if v] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise _Refused
        return tuple(convert(v, args[0]) for v in items)
    if origin in (Union, types.UnionType):
        if value is None or value == "none":
            return None
        return convert(value, next(a for a in args if a is not type(None)))
    return _simple(value, hint)


def _simple(value: object, hint: type) -> object:
    if hint is bool and isinstance(value, str) and value.lower() in WORDS:
        return WORDS[value.lower()]
    if hint in (int, float) and isinstance(value, str):
        try:
            return hint(value)
        except ValueError:
            raise _Refused from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise _Refused
    return value


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else show(value)  # type: ignore[arg-type]
