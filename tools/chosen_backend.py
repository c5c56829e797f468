"""Which backend a compile is for, with its options: ``--backend NAME:option=value`` and the short forms of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fretsaw.backends.backend import Backend, ModelFacts
from fretsaw.backends.registry import DEFAULT, Registry
from fretsaw.ir.errors import UsageError
from fretsaw.passes.api import Pass
from fretsaw.passes.kit.compose import check_together
from fretsaw.passes.kit.options import default_of, describe, fill, parse_assignments, plain
from fretsaw.passes.kit.recipe import Place, Step


@dataclass(frozen=True)
class Short:
    """A flag of the command line that stands for an option of the backend.

    Args:
        flag: As it is written, ``--chunk``.
        option: The option's name.
        value: What was given.
    """

    flag: str
    option: str
    value: object


@dataclass(frozen=True)
class ChosenBackend:
    """A backend and what it was told; ``options`` is an instance of ``backend.options``."""

    backend: Backend[Any]
    options: object

    def settled(self, model: ModelFacts) -> ChosenBackend:
        """With the options for this model.

        Raises:
            UsageError: options that such a model cannot have.
        """
        return replace(self, options=self.backend.settle(self.options, model))

    def to_json(self) -> dict[str, object]:
        """What the manifest says of it."""
        return {"name": self.backend.name, "options": plain(self.options)}


def choose(asked: str = "", short: Sequence[Short] = (), registry: Registry | None = None) -> ChosenBackend:
    """The backend that ``--backend`` names, or the default one, with its options.

    Args:
        asked: ``NAME`` or ``NAME:option=value,option=value``; empty: the default.
        short: Short forms that were given beside it.
        registry: Where to look; None: what is built in and installed.

    Raises:
        UsageError: there is no such backend, option or value (lists those that exist), or an option is given twice.
    """
    name, colon, rest = asked.partition(":")
    where = f"--backend {asked}" if asked else ""
    if asked and (not name.strip() or (colon and not rest)):
        raise UsageError(f'--backend wants NAME or NAME:option=value,..., not "{asked}"')
    registry = registry or Registry.standard()
    try:
        backend = registry.find(name.strip() or DEFAULT)
        given: Mapping[str, object] = parse_assignments(rest) if rest else {}
        options = default_of(f"the backend {backend.name}", backend.options)
        options = fill(f"the backend {backend.name}", options, {**given, **_long(backend.name, options, given, short)})
    except UsageError as error:
        raise UsageError(error.what, where=error.where or where, context=error.context, hint=error.hint) from None
    return ChosenBackend(backend, options)


def with_backend_passes(requested: Sequence[Pass], chosen: ChosenBackend) -> tuple[Pass, ...]:
    """The passes of a compile in order: those asked for, then the backend's own, but for those asked for already.

    Raises:
        UsageError: they do not go together.
    """
    names = {p.name for p in requested}
    own = [p for p in chosen.backend.passes(chosen.options) if p.name not in names]
    steps = [Step(p.name) for p in requested]
    steps += [Step(p.name, place=Place(f"the backend {chosen.backend.name}")) for p in own]
    check_together(steps, [*requested, *own])
    return (*requested, *own)


def _long(name: str, options: object, given: Mapping[str, object], short: Sequence[Short]) -> dict[str, object]:
    """Options that short forms stand for.

    Raises:
        UsageError: the backend has no such option, or it is given in both forms.
    """
    known = [info.name for info in describe(options)]
    for s in short:
        if s.option not in known:
            has = f"it has {', '.join(known)}" if known else "it has no options"
            raise UsageError(f"{s.flag} is short for the option {s.option}, which the backend {name} has not", hint=has)
        if s.option in given:
            raise UsageError(f"{s.flag} and --backend {name}:{s.option}=... say the same option", hint="leave one out")
    return {s.option: s.value for s in short}
