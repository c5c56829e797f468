"""Recipes: which passes a compile is asked for, in which order, with which options, plugins and limits. TOML.

plugins = ["my_pass.py"]        # beside the recipe

[[pass]]
name = "my_pass"
options = { strength = 2.0 }

[gates]
max_kl = 0.01                   # nats per token
min_top1 = 0.99                 # share of tokens
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from fretsaw.ir.errors import UsageError
from fretsaw.passes.kit.options import Plain, parse_assignments

KEYS, PASS_KEYS, GATE_KEYS = ("plugins", "pass", "gates"), ("name", "options"), ("max_kl", "min_top1")


@dataclass(frozen=True)
class Place:
    """Where a wish stands: a line of a recipe, or the command line."""

    where: str
    context: str = ""


@dataclass(frozen=True)
class Step:
    """One requested pass; ``options`` hold strings of a command line or typed values of a recipe."""

    name: str
    options: Mapping[str, object] = field(default_factory=dict)
    place: Place = field(default=Place("command line"), compare=False)


@dataclass(frozen=True)
class Gates:
    """Limits that the result has to meet; None: no limit.

    Args:
        max_kl: Mean KL divergence to the checkpoint, in nats per token.
        min_top1: Share of tokens whose most likely successor stays the same.
    """

    max_kl: float | None = None
    min_top1: float | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that a recipe says. Paths of plugins are relative to the working directory."""

    steps: tuple[Step, ...] = ()
    gates: Gates = Gates()
    plugins: tuple[Path, ...] = ()

    def to_toml(self) -> str:
        """The recipe as text that :func:`load_recipe` reads back, plugins by absolute path."""
        blocks = []
        if self.plugins:
            blocks.append(f"plugins = {_value([str(p.resolve()) for p in self.plugins])}")
        for step in self.steps:
            lines = ["[[pass]]", f"name = {_value(step.name)}"]
            if step.options:
                inner = ", ".join(f"{k} = {_value(v)}" for k, v in step.options.items() if v is not None)
                lines.append(f"options = {{ {inner} }}")
            blocks.append("\n".join(lines))
        gates = [f"{k} = {_value(v)}" for k in GATE_KEYS if (v := getattr(self.gates, k)) is not None]
        if gates:
            blocks.append("\n".join(["[gates]", *gates]))
        return "\n\n".join(blocks) + "\n"


def parse_step(text: str) -> Step:
    """A step from ``NAME`` or ``NAME:option=value,option=value``, as ``--pass`` has it.

    Raises:
        UsageError: no name, or options that are not of that form.
    """
    name, colon, rest = text.partition(":")
    place = Place(f"--pass {text}")
    if not name.strip() or (colon and not rest):
        raise UsageError(f'--pass wants NAME or NAME:option=value,..., not "{text}"')
    try:
        return Step(name.strip(), parse_assignments(rest) if rest else {}, place)
    except UsageError as error:
        raise UsageError(error.what, where=place.where, hint=error.hint) from None


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        UsageError: no such file, no TOML, an unknown key or a value of a wrong type; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read the recipe {path}: {why}") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = int(found[1]) if found else len(text.splitlines())
        what = f"the recipe is not TOML: {re.sub(r' [(]at .*', '', str(error))}"
        raise UsageError(what, where=f"{path}:{line}", context=_around(text.splitlines(), line)) from None
    return _Reader(path, text).recipe(data)


class _Reader:
    """Checks the data of one recipe and knows the lines of its text."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.lines = path, text.splitlines()

    def recipe(self, data: Mapping[str, object]) -> Recipe:
        self.known(data, KEYS, 0)
        plugins = data.get("plugins", [])
        if not isinstance(plugins, list) or not all(isinstance(p, str) for p in plugins):
            self.refuse("plugins is a list of file names", self.line_of("plugins"))
        steps = data.get("pass", [])
        if not isinstance(steps, list) or not all(isinstance(s, dict) for s in steps):
            self.refuse("every pass is a table: write [[pass]]", self.line_of("pass"))
        gates = data.get("gates", {})
        if not isinstance(gates, dict):
            self.refuse("gates is a table: write [gates]", self.line_of("gates"))
        folder = self.path.parent
        starts = [self.start_of(i, len(steps), str(s.get("name", ""))) for i, s in enumerate(steps)]
        return Recipe(
            tuple(self.step(s, start) for s, start in zip(steps, starts, strict=True)),
            self.gates(gates),
            tuple(folder / p for p in plugins),
        )

    def step(self, data: Mapping[str, object], start: int) -> Step:
        self.known(data, PASS_KEYS, start)
        name, options = data.get("name"), data.get("options", {})
        if not isinstance(name, str) or not name:
            self.refuse("a pass needs a name", start, hint='write name = "..." below [[pass]]')
        if not isinstance(options, dict):
            self.refuse(f"options of {name} are a table", self.line_of("options", start))
        return Step(name, options, self.place(self.line_of("name", start)))

    def gates(self, data: Mapping[str, object]) -> Gates:
        start = self.line_of("gates")
        self.known(data, GATE_KEYS, start)
        for key, value in data.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                self.refuse(f"{key} is a number, 0 or more", self.line_of(key, start))
            if key == "min_top1" and value > 1:
                self.refuse("min_top1 is a share of tokens, 0 to 1", self.line_of(key, start))
        numbers = {k: float(v) for k, v in data.items() if isinstance(v, (int, float))}
        return Gates(**numbers)

    def known(self, data: Iterable[str], allowed: tuple[str, ...], start: int) -> None:
        for key in data:
            if key not in allowed:
                near = difflib.get_close_matches(key, allowed, 1)
                guess = f"did you mean {near[0]}? " if near else ""
                self.refuse(f"unknown key {key}", self.line_of(key, start), hint=f"{guess}keys: {', '.join(allowed)}")

    def start_of(self, index: int, count: int, name: str) -> int:
        """Line of the ``index``-th pass: its header, or where its name stands in an inline table."""
        headers = [i for i, line in enumerate(self.lines, 1) if re.match(r"\s*\[\[\s*pass\s*\]\]", line)]
        if len(headers) == count:
            return headers[index]
        return next((i for i, line in enumerate(self.lines, 1) if f'"{name}"' in line), 1)

    def line_of(self, key: str, start: int = 0) -> int:
        """Line of ``key`` at or below ``start``: as a key, a table, or anywhere in a line; else ``start``."""
        below = list(enumerate(self.lines[max(start - 1, 0) :], max(start, 1)))
        for pattern in (rf"\s*\[*\s*{re.escape(key)}\s*(=|\])", rf"(.*\W)?{re.escape(key)}\s*="):
            for number, line in below:
                if re.match(pattern, line):
                    return number
        return max(start, 1)

    def place(self, line: int) -> Place:
        return Place(f"{self.path}:{line}", _around(self.lines, line))

    def refuse(self, what: str, line: int, hint: str = "") -> NoReturn:
        place = self.place(line)
        raise UsageError(what, where=place.where, context=place.context, hint=hint)


def _around(lines: list[str], line: int) -> str:
    """The line, marked, with one on either side."""
    rows = range(max(1, line - 1), min(len(lines), line + 1) + 1)
    return "\n".join(f"{'>' if i == line else ' '} {i:3}  {lines[i - 1]}".rstrip() for i in rows)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{escaped}"'
    assert isinstance(value, (int, float))
    return repr(value)


__all__ = ["Gates", "Place", "Plain", "Recipe", "Step", "load_recipe", "parse_step"]
