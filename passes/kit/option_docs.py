"""What options mean, for people: sentences from the docstrings of their classes, and the variants that they come in."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

NAMED = re.compile(r"(?P<names>\w+(?:, \w+)*): (?P<text>.*)")
SECTIONS = frozenset({"Args", "Raises", "Returns"})


@dataclass(frozen=True)
class Variant:
    """One of the forms that options come in.

    Args:
        doc: What it does; the first line says it in short.
        options: With its defaults.
    """

    doc: str
    options: object


@runtime_checkable
class Family(Protocol):
    """Options of which one decides which others there are, and which can list them."""

    def variants(self) -> Mapping[str, Variant]:
        """All forms by the value that chooses them; empty where one of them is chosen already."""

    def chooser(self) -> str:
        """Name of the option that chooses."""

    def about(self) -> str:
        """The documentation of the form that is chosen; empty where none is."""


def option_docs(options: object) -> dict[str, str]:
    """Sentences by option, from the sections ``Args`` of the class and those that it derives from; nearest first."""
    out: dict[str, str] = {}
    for kind in type(options).__mro__:
        for name, text in _described(inspect.cleandoc(kind.__dict__.get("__doc__") or "")).items():
            out.setdefault(name, text.replace("``", "`"))
    return out


def _described(doc: str) -> dict[str, str]:
    """Entries of the section ``Args``: ``name: text``, or ``name, name: text``, and lines that go on with one."""
    out: dict[str, str] = {}
    section, indent = "", ""
    names: list[str] = []
    for line in doc.splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            section, indent, names = line[:-1], "", []
            continue
        if section != "Args" or not line.strip():
            continue
        own = line[: len(line) - len(line.lstrip())]
        indent = indent if names else own
        found = NAMED.fullmatch(line.strip()) if own == indent else None
        if found is not None:
            names = found["names"].split(", ")
            out.update(dict.fromkeys(names, found["text"]))
        else:
            out.update({name: f"{out[name]} {line.strip()}" for name in names})
    return out
