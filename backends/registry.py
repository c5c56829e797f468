"""Which backends exist, and where each comes from: built-in, or an installed package.

A package names its backends in its metadata, under the entry-point group ``fretsaw.backends``; each entry is an object
of `backend.py`'s protocol. It is code that runs with the rights of the user: install only what you trust. Nothing is
imported before it is used, so that a package that is broken stands in nobody's way but its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from fretsaw.backends.backend import Backend
from fretsaw.ir.errors import FretsawError, PassError, UsageError
from fretsaw.ir.phases import PHASES
from fretsaw.passes.kit.options import default_of

GROUP = "fretsaw.backends"
BUILT_IN: Mapping[str, str] = {"cpu": "fretsaw.backends.tvm.backend:backend"}  # name -> module:object
DEFAULT = next(iter(BUILT_IN))
MEMBERS = ("name", "options", "phase", "passes", "lowerings", "settle", "build")


@dataclass(frozen=True)
class Registered:
    """A backend that is known by name and perhaps not loaded yet.

    Args:
        origin: ``built-in``, or the package with its version.
    """

    entry: EntryPoint
    origin: str = "built-in"

    @property
    def name(self) -> str:
        return self.entry.name

    def load(self) -> Backend[Any]:
        """The backend itself; imports its module.

        Raises:
            UsageError: it cannot be loaded, with the error that stands in the way, or is no backend.
        """
        place = f"entry point {self.entry.name} = {self.entry.value}"
        hint = "" if self.origin == "built-in" else "repair or uninstall the package"
        try:
            found = self.entry.load()
        except (Exception, SystemExit) as error:  # a package may do anything when it is imported
            raise UsageError(
                f"the backend {self.name} of {self.origin} cannot be loaded: {_short(error)}", where=place, hint=hint
            ) from error
        fault = _fault(self.name, found)
        if fault:
            raise UsageError(f"the backend {self.name} of {self.origin} {fault}", where=place, hint=hint)
        return cast("Backend[Any]", found)


@dataclass(frozen=True)
class Registry:
    """Backends by name. Immutable."""

    backends: Mapping[str, Registered]

    @staticmethod
    def built_in() -> Registry:
        """The backends that Fretsaw brings."""
        return Registry({name: Registered(EntryPoint(name, at, GROUP)) for name, at in BUILT_IN.items()})

    @staticmethod
    def standard() -> Registry:
        """Built-in backends and those of installed packages.

        Raises:
            UsageError: a package takes a name that exists.
        """
        found = dict(Registry.built_in().backends)
        for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
            added = Registered(entry, _origin(entry))
            taken = found.get(entry.name)
            if taken is not None and taken.origin != added.origin:
                raise UsageError(
                    f"the backend {entry.name} of {added.origin} has the name of one that exists ({taken.origin})",
                    where=f"entry point {entry.name} = {entry.value}",
                    hint="uninstall one of the two",
                )
            found[entry.name] = added
        return Registry(found)

    def find(self, name: str) -> Backend[Any]:
        """The backend of that name, loaded.

        Raises:
            UsageError: there is none (lists those that exist), or it cannot be loaded.
        """
        if name in self.backends:
            return self.backends[name].load()
        near = difflib.get_close_matches(name, self.backends, 1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no backend {name}", hint=f"{guess}there are: {', '.join(self.backends)}")


def _origin(entry: EntryPoint) -> str:
    dist = entry.dist
    return f"package {dist.name} {dist.version}" if dist is not None else f"package of {entry.value}"


def _short(error: BaseException) -> str:
    return error.what if isinstance(error, FretsawError) else f"{type(error).__name__}: {error}"


def _fault(name: str, found: object) -> str:
    """What keeps an object from being the backend ``name``; empty when nothing does."""
    missing = [member for member in MEMBERS if not hasattr(found, member)]
    if isinstance(found, type) or missing:
        lacks = "" if isinstance(found, type) else f", it has no {', '.join(missing)}"
        return f"is {'a class' if isinstance(found, type) else type(found).__name__}, not a backend{lacks}"
    backend = cast("Backend[Any]", found)
    if backend.name != name:
        return f"calls itself {backend.name}"
    if backend.phase not in PHASES:
        return f"lowers from phase {backend.phase}, which does not exist; phases: {', '.join(PHASES)}"
    try:
        default_of(f"the backend {name}", backend.options)
    except PassError as error:
        return f"has options that no command line can fill: {error.what}"
    return ""
