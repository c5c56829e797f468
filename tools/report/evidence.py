"""``evidence.json`` as typed records. The file comes from outside: every type is checked, nothing is assumed.

Fields that older artifacts lack (origin, options, cost, checks) may be missing; all others must be there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fretsaw.ir.errors import ArtifactError

Scalar = str | int | float | bool | None
T = TypeVar("T")
MAX_DEPTH = 16
LARGEST = 10**30  # of a count; larger ones are no honest number and overflow a float


@dataclass(frozen=True)
class Cost:
    """Of one run: floating point operations, bytes of weights and of activations, parameters."""

    flops: int
    weight_bytes: int
    activation_bytes: int
    parameters: int


@dataclass(frozen=True)
class Declined:
    """A site that a pass left alone."""

    node: str
    op: str
    module: str
    reason: str


@dataclass(frozen=True)
class Record:
    """What one pass did, as the ledger has it; see ``fretsaw.passes.kit.ledger``."""

    name: str
    phase: str
    keeps: str
    hit: int
    demanded: int
    sites: tuple[str, ...]
    declined: tuple[Declined, ...]
    sweeps: int
    nodes_before: int
    nodes_after: int
    check: Mapping[str, Scalar]
    options: Mapping[str, Scalar] = field(default_factory=dict)
    origin: str = ""
    requested: bool = False
    before: Cost | None = None
    after: Cost | None = None

    @property
    def changed(self) -> bool:
        return bool(self.hit) or self.nodes_before != self.nodes_after or self.before != self.after

    @property
    def status(self) -> str:
        """``passed``, ``off`` or ``unchecked: why``."""
        return str(self.check.get("status", ""))


@dataclass(frozen=True)
class Evidence:
    """All passes in order, and what was said about the checks as a whole."""

    passes: tuple[Record, ...] = ()
    checks: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def unchecked(self) -> bool:
        """The compile was told not to check."""
        off = [r for r in self.passes if r.status == "off" or "--no-check" in r.status]
        return "--no-check" in json.dumps(dict(self.checks)) or (bool(off) and len(off) == len(self.passes))


def read_evidence(text: str) -> Evidence:
    """The records in ``text``.

    Raises:
        ArtifactError: it is not JSON, or the first place where something has the wrong type.
    """
    try:
        whole = json.loads(text)
    except RecursionError:
        raise ArtifactError(f"evidence.json: nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:  # JSONDecodeError, or a number of thousands of digits
        raise ArtifactError(f"evidence.json is not JSON: {error}") from None
    _check_depth(whole)
    top = _object(whole, "the whole")
    passes = [_record(_object(p, f"passes[{i}]"), f"passes[{i}]") for i, p in enumerate(_get(top, "passes", "", list))]
    return Evidence(tuple(passes), _scalars(top.get("checks") or {}, "checks"))


def _check_depth(whole: object) -> None:
    todo: list[tuple[object, int]] = [(whole, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise ArtifactError(f"evidence.json: nested deeper than {MAX_DEPTH} levels")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        todo += [(v, depth + 1) for v in inner]


def _record(p: Mapping[str, object], at: str) -> Record:
    def count(key: str) -> int:
        return _count(_get(p, key, at, int), f"{at}.{key}")

    return Record(
        name=_get(p, "name", at, str),
        phase=_get(p, "phase", at, str),
        keeps=_get(p, "keeps", at, str),
        hit=count("hit"),
        demanded=count("demanded"),
        sites=tuple(_texts(_get(p, "sites", at, list), f"{at}.sites")),
        declined=tuple(_declined(d, f"{at}.declined[{i}]") for i, d in enumerate(_get(p, "declined", at, list))),
        sweeps=count("sweeps"),
        nodes_before=count("nodes_before"),
        nodes_after=count("nodes_after"),
        check=_scalars(_get(p, "check", at, dict), f"{at}.check"),
        options=_scalars(p.get("options") or {}, f"{at}.options"),
        origin=_get(p, "origin", at, str) if p.get("origin") is not None else "",
        requested=p.get("requested") is True,
        before=_cost(p.get("cost_before"), f"{at}.cost_before"),
        after=_cost(p.get("cost_after"), f"{at}.cost_after"),
    )


def _declined(value: object, at: str) -> Declined:
    if not isinstance(value, list) or len(value) != 4:
        raise _wrong(at, "a list of node, op, module path and reason", value)
    return Declined(*_texts(value, at))


def _cost(value: object, at: str) -> Cost | None:
    if value is None:
        return None
    inner = _object(value, at)
    keys = ("flops", "weight_bytes", "activation_bytes", "parameters")
    return Cost(*(_count(_get(inner, key, at, int), f"{at}.{key}") for key in keys))


def _get(p: Mapping[str, object], key: str, at: str, kind: type[T]) -> T:
    where = f"{at}.{key}" if at else key
    if key not in p:
        raise ArtifactError(f"evidence.json: {where} is missing")
    value = p[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise _wrong(where, _NAMES[kind], value)
    return value


def _object(value: object, at: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _wrong(at, "an object", value)
    return value


def _count(value: int, at: str) -> int:
    if not 0 <= value <= LARGEST:
        raise ArtifactError(f"evidence.json: {at} is no count: {'negative' if value < 0 else 'over 10^30'}")
    return value


def _texts(values: Sequence[object], at: str) -> list[str]:
    out = []
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise _wrong(f"{at}[{i}]", "text", value)
        out.append(value)
    return out


def _scalars(value: object, at: str) -> dict[str, Scalar]:
    """Plain values as they are; whatever is nested, as JSON text."""
    out: dict[str, Scalar] = {}
    for key, inner in _object(value, at).items():
        if isinstance(inner, int) and not isinstance(inner, bool) and abs(inner) > LARGEST:
            raise ArtifactError(f"evidence.json: {at} has a number over 10^30")
        plain = inner is None or isinstance(inner, (str, int, float))
        out[key] = inner if plain else json.dumps(inner)  # type: ignore[assignment]
    return out


def _wrong(at: str, expected: str, value: object) -> ArtifactError:
    return ArtifactError(f"evidence.json: {at} must be {expected}, is {json.dumps(value)[:60]}")


_NAMES: Mapping[type, str] = {int: "a whole number", str: "text", dict: "an object", list: "a list"}
