"""What differs between two artifacts beside their graphs: manifest, evidence, bytes of weights. Reads data only."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fretsaw.backends.artifact import Container
from fretsaw.tools.report.layers import folded_paths

ABSENT = "absent"
APART = frozenset(("weights.tensors",))  # compared tensor by tensor
NAMED = ("name", "section", "node")  # what an entry of a list is called


@dataclass(frozen=True)
class Difference:
    """One value, by its dotted path, on both sides."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path} {self.before} -> {self.after}"

    def to_json(self) -> dict[str, str]:
        return {"path": self.path, "before": self.before, "after": self.after}


def compare_data(before: object, after: object) -> list[Difference]:
    """Every value of plain JSON data that differs. Entries of lists are known by their names, not their places."""
    old, new = (dict(_leaves(data, "")) for data in (before, after))
    paths = [p for p in dict.fromkeys([*old, *new]) if old.get(p) != new.get(p)]
    return [Difference(p, old.get(p, ABSENT), new.get(p, ABSENT)) for p in paths]


def _leaves(data: object, path: str) -> Iterator[tuple[str, str]]:
    if path in APART:
        return
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, list) and data and all(isinstance(x, Mapping) for x in data):
        seen: Counter[str] = Counter()
        for i, value in enumerate(data):
            name = str(next((value[key] for key in NAMED if key in value), i))
            seen[name] += 1
            shown = name if seen[name] == 1 else f"{name} #{seen[name]}"
            yield f"{path}[{shown}]", "present"
            yield from _leaves(value, f"{path}[{shown}]")
    elif isinstance(data, list):
        yield path, f"[{', '.join(map(str, data))}]" if len(data) <= 8 else f"{len(data)} entries, {_digest(data)}"
    else:
        yield path, str(data)


def _digest(data: object) -> str:
    return hashlib.sha256(repr(data).encode()).hexdigest()[:12]


def told(differences: list[Difference]) -> list[Difference]:
    """Without what lies inside an entry that only one side has."""
    lone = [d.path for d in differences if ABSENT in (d.before, d.after) and "present" in (d.before, d.after)]
    return [d for d in differences if not any(d.path != p and d.path.startswith(p) for p in lone)]


def compare_weights(a: Container, b: Container) -> list[str]:
    """Tensors with other types, shapes or bytes, with layers folded."""
    old, new = _tensors(a), _tensors(b)
    lines = [f"removed {p}" for p in folded_paths([n for n in old if n not in new])]
    lines += [f"added {p}" for p in folded_paths([n for n in new if n not in old])]
    kinds: dict[str, list[str]] = {}
    same_bytes = _section_digest(a) == _section_digest(b)
    for name in (n for n in old if n in new):
        was, now = old[name], new[name]
        if was[0] != now[0]:
            kinds.setdefault(f"{was[0]} -> {now[0]}", []).append(name)
        elif not same_bytes and _bytes_digest(a, was) != _bytes_digest(b, now):
            kinds.setdefault("other values", []).append(name)
    lines += [f"{p}: {text}" for text, names in kinds.items() for p in folded_paths(names)]
    return lines


Tensor = tuple[str, int, int]  # type, offset in the section, bytes


def _tensors(container: Container) -> dict[str, Tensor]:
    weights = container.manifest["weights"]
    assert isinstance(weights, Mapping)  # validated
    return {
        t["name"]: (f"{t['dtype']}[{', '.join(map(str, t['shape']))}]", t["offset"], t["bytes"])
        for t in weights["tensors"]
    }


def _section(container: Container) -> str:
    weights = container.manifest["weights"]
    assert isinstance(weights, Mapping)
    return str(weights["section"])


def _section_digest(container: Container) -> bytes:
    return container.sections[_section(container)].digest


def _bytes_digest(container: Container, tensor: Tensor) -> bytes:
    _, offset, nbytes = tensor
    return hashlib.sha256(container.section(_section(container))[offset : offset + nbytes]).digest()
