"""The section ``program``: JSON of a step program, and back. What is read is hostile: everything is bounded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

from fretsaw.backends.program.entry import ARRAY_BYTES, Argument, Array, ArrayType, Call, Entry, StepProgram
from fretsaw.backends.program.memory import coefficients, polynomial
from fretsaw.ir.dims import DimLike
from fretsaw.ir.errors import ArtifactError

SECTION = "program"
VERSION = 1
MAX_BYTES = 64 << 20
MAX_ENTRIES, MAX_SYMBOLS, MAX_ITEMS, MAX_ARGS, MAX_AXES = 16, 16, 1 << 16, 64, 8
MAX_TERMS, MAX_DEGREE, MAX_NUMBER, MAX_NAME = 64, 8, 2**53, 256
KINDS = ("value", "tensor", "cache", "int")


def to_json(program: StepProgram) -> dict[str, object]:
    """The program as plain data."""
    return {"version": VERSION, "entries": [_entry_data(e) for e in program.entries]}


def to_bytes(program: StepProgram) -> bytes:
    """The section. Equal programs give equal bytes."""
    return json.dumps(to_json(program), ensure_ascii=False, separators=(",", ":")).encode()


def from_bytes(data: bytes | memoryview) -> StepProgram:
    """The program of a section. Its parts have the documented types and bounds; ``verify`` checks what they say.

    Raises:
        ArtifactError: says what is wrong, and where.
    """
    if len(data) > MAX_BYTES:
        raise _wrong(SECTION, f"has {len(data)} bytes, more than {MAX_BYTES}")
    try:
        parsed = json.loads(bytes(data), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _wrong(SECTION, f"is not JSON: {error}") from None
    root = _object(parsed, SECTION)
    if (version := _number(root.get("version"), "version")) != VERSION:
        raise _wrong("version", f"is {version}, this reader knows {VERSION}")
    entries = _list(root.get("entries"), "entries", MAX_ENTRIES)
    return StepProgram(tuple(_entry(e, f"entries[{i}]") for i, e in enumerate(entries)))


def _entry_data(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "symbols": list(entry.symbols),
        "inputs": list(entry.inputs),
        "outputs": list(entry.outputs),
        "slots": [_size_data(s) for s in entry.slots],
        "values": [_array_data(v) for v in entry.values],
        "launches": [{"kernel": c.kernel, "args": [list(a) for a in c.args], "made": c.made} for c in entry.calls],
    }


def _array_data(value: Array) -> dict[str, object]:
    place = {"slot": value.slot, "of": value.of}
    return {
        "name": value.name, "dtype": value.dtype, "shape": [_size_data(d) for d in value.shape],
        **{key: number for key, number in place.items() if number is not None},
    }  # fmt: skip


def _size_data(dim: DimLike) -> int | dict[str, int]:
    return dim if isinstance(dim, int) else {"*".join(m): c for m, c in coefficients(dim).items()}


def _entry(data: object, at: str) -> Entry:
    entry = _object(data, at)
    symbols = tuple(
        _name(s, f"{at}.symbols[{i}]")
        for i, s in enumerate(_list(entry.get("symbols"), f"{at}.symbols", MAX_SYMBOLS))
    )  # fmt: skip
    numbers = {
        key: tuple(_number(n, f"{at}.{key}[{i}]") for i, n in enumerate(_list(entry.get(key), f"{at}.{key}")))
        for key in ("inputs", "outputs")
    }
    slots = _list(entry.get("slots"), f"{at}.slots")
    values = _list(entry.get("values"), f"{at}.values")
    calls = _list(entry.get("launches"), f"{at}.launches")
    return Entry(
        _name(entry.get("name"), f"{at}.name"), symbols, numbers["inputs"], numbers["outputs"],
        tuple(_size(s, f"{at}.slots[{i}]", symbols) for i, s in enumerate(slots)),
        tuple(_array(v, f"{at}.values[{i}]", symbols) for i, v in enumerate(values)),
        tuple(_call(c, f"{at}.launches[{i}]") for i, c in enumerate(calls)),
    )  # fmt: skip


def _array(data: object, at: str, symbols: Sequence[str]) -> Array:
    value = _object(data, at)
    dtype = value.get("dtype")
    if not isinstance(dtype, str) or dtype not in ARRAY_BYTES:
        raise _wrong(f"{at}.dtype", f"must be one of {', '.join(ARRAY_BYTES)}, is {dtype!r}")
    shape = _list(value.get("shape"), f"{at}.shape", MAX_AXES)
    places = {key: _number(value[key], f"{at}.{key}") for key in ("slot", "of") if value.get(key) is not None}
    return Array(
        _name(value.get("name"), f"{at}.name"), cast("ArrayType", dtype),
        tuple(_size(d, f"{at}.shape[{i}]", symbols) for i, d in enumerate(shape)), places.get("slot"), places.get("of"),
    )  # fmt: skip


def _call(data: object, at: str) -> Call:
    call = _object(data, at)
    args = _list(call.get("args"), f"{at}.args", MAX_ARGS)
    made = _number(call.get("made"), f"{at}.made")
    if made > len(args):
        raise _wrong(f"{at}.made", f"is {made}, more than the {len(args)} arguments")
    return Call(
        _name(call.get("kernel"), f"{at}.kernel"),
        tuple(_argument(a, f"{at}.args[{i}]") for i, a in enumerate(args)), made,
    )  # fmt: skip


def _argument(data: object, at: str) -> Argument:
    pair = _list(data, at, 2)
    if len(pair) != 2 or pair[0] not in KINDS:
        raise _wrong(at, f"must be a pair whose first is one of {', '.join(KINDS)}")
    kind, what = pair
    if kind == "cache":
        return Argument("cache", _name(what, at))
    if kind == "int":
        if isinstance(what, bool) or not isinstance(what, int) or not -(2**63) <= what < 2**63:
            raise _wrong(at, "must be a whole number of 64 bits")
        return Argument("int", what)
    return Argument("value" if kind == "value" else "tensor", _number(what, at))


def _size(data: object, at: str, symbols: Sequence[str]) -> DimLike:
    if not isinstance(data, Mapping):
        return _number(data, at)
    if len(data) > MAX_TERMS:
        raise _wrong(at, f"has {len(data)} terms, more than {MAX_TERMS}")
    terms: dict[tuple[str, ...], int] = {}
    for text, number in data.items():
        monomial = tuple(sorted(text.split("*"))) if text else ()
        if len(monomial) > MAX_DEGREE or not set(monomial) <= set(symbols):
            raise _wrong(at, f"{text!r} is no product of at most {MAX_DEGREE} of the entry's symbols")
        terms[monomial] = terms.get(monomial, 0) + _number(number, f"{at}.{text}")
        if terms[monomial] >= MAX_NUMBER:
            raise _wrong(f"{at}.{text}", "must be below 2^53")
    return polynomial(terms)


def _object(data: object, at: str) -> Mapping[str, object]:
    if not isinstance(data, dict):
        raise _wrong(at, "must be an object")
    return data


def _list(data: object, at: str, most: int = MAX_ITEMS) -> Sequence[object]:
    if not isinstance(data, list):
        raise _wrong(at, "must be a list")
    if len(data) > most:
        raise _wrong(at, f"has {len(data)} items, more than {most}")
    return data


def _number(data: object, at: str) -> int:
    if isinstance(data, bool) or not isinstance(data, int) or not 0 <= data < MAX_NUMBER:
        raise _wrong(at, "must be a whole number from 0 to below 2^53")
    return data


def _name(data: object, at: str) -> str:
    if not isinstance(data, str) or not 1 <= len(data.encode(errors="surrogatepass")) <= MAX_NAME:
        raise _wrong(at, f"must be text of 1 to {MAX_NAME} bytes")
    return data


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no number")


def _wrong(at: str, what: str) -> ArtifactError:
    return ArtifactError(f"step program: {at} {what}")
