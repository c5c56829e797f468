"""Which passes exist, and where each comes from: built-in, an installed package, or a file that the user names.

A plugin and an installed package are Python code that runs with the rights of the user: load only what you trust.
A plugin is one file with one pass or several at its top level. A package names its passes in its metadata, under the
entry-point group ``fretsaw.passes``; each entry is a pass, or a module with passes.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from fretsaw.ir.errors import FretsawError, UsageError
from fretsaw.passes.api import Pass

GROUP = "fretsaw.passes"
BUILT_IN = "built-in"


@dataclass(frozen=True)
class Registry:
    """Passes by name. Immutable: adding some gives another registry."""

    passes: Mapping[str, Pass]

    @staticmethod
    def built_in() -> Registry:
        """The passes of the pipeline in its order, then those that run only on request."""
        from fretsaw.passes.pipeline import ON_REQUEST, PIPELINE

        standard = [p for phase in PIPELINE.values() for p in phase]
        return Registry({p.name: p for p in [*standard, *ON_REQUEST]})

    @staticmethod
    def standard() -> Registry:
        """Built-in passes and those of installed packages.

        Raises:
            UsageError: an installed package cannot be loaded, has no pass, or takes a name that exists.
        """
        registry = Registry.built_in()
        for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
            registry = registry._with(*_of_package(entry))
        return registry

    def with_plugin(self, path: Path) -> Registry:
        """The registry with the passes of the file ``path``, whose code runs.

        Raises:
            UsageError: it is no file, its code fails (with file and line), has no pass, or takes a name that exists.
        """
        return self._with(f"plugin {path}", _in_module(_load_file(path)), str(path))

    def find(self, name: str) -> Pass:
        """The pass of that name.

        Raises:
            UsageError: there is none; names the nearest ones.
        """
        if name in self.passes:
            return self.passes[name]
        near = difflib.get_close_matches(name, self.passes, 2, cutoff=0.75)
        guess = f"did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(
            f"there is no pass {name}", hint=f"{guess}`fretsaw passes` lists them, --plugin FILE adds some"
        )

    def all(self) -> tuple[Pass, ...]:
        """Every pass: built-in ones in the order of the pipeline, then packages', then plugins'."""
        return tuple(self.passes.values())

    def _with(self, origin: str, found: Iterable[Pass], place: str) -> Registry:
        passes = dict(self.passes)
        empty = True
        for p in found:
            empty = False
            check_pass(p, place)
            taken = passes.get(p.name)
            if taken is not None and taken.origin != origin:
                raise UsageError(
                    f"the pass {p.name} of {origin} has the name of a pass that exists ({taken.origin})",
                    where=place,
                    hint="give its function another name",
                )
            passes[p.name] = replace(p, origin=origin)
        if empty:
            raise UsageError(
                f"{origin} has no pass", where=place, hint="decorate a function with @rule(...) or @graph_pass(...)"
            )
        return Registry(passes)


def check_pass(p: Pass, place: str) -> None:
    """Refuse a pass that no compile could run.

    Raises:
        UsageError: its phase or its class does not exist, or it starts from an op that does not exist.
    """
    from fretsaw.ir.op import has_op
    from fretsaw.passes.pipeline import PIPELINE

    if p.phase not in PIPELINE:
        raise UsageError(
            f"{p.name} belongs to phase {p.phase}, which does not exist", where=place,
            hint=f"phases: {', '.join(PIPELINE)}",
        )  # fmt: skip
    if p.keeps not in ("bits", "algebra", "budget"):
        raise UsageError(f"{p.name} keeps {p.keeps}, which is no class", where=place, hint="bits, algebra or budget")
    unknown = sorted(op for op in p.roots if op != "*" and not has_op(op))
    if unknown:
        raise UsageError(f"{p.name} starts from the op {unknown[0]}, which does not exist", where=place,
                         hint="docs/ir.md lists the ops")  # fmt: skip


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no plugin {path}", hint="--plugin wants the path of a Python file")
    whole = str(path.resolve())
    # A name of its own for every path: two plugins called passes.py do not replace each other.
    name = f"fretsaw_plugin_{path.stem}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"the plugin {path} is no Python file", hint="its name has to end with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look their module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"the plugin {path} cannot be loaded: {_short(error)}", **_place(error, path)) from error
    return module


def _short(error: Exception) -> str:
    if isinstance(error, FretsawError):
        return error.what
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"


def _place(error: Exception, path: Path) -> dict[str, str]:
    """File and line of the plugin where the error came up, and that line."""
    if isinstance(error, SyntaxError):
        return {"where": f"{error.filename or path}:{error.lineno}", "context": f"> {(error.text or '').rstrip()}"}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path.resolve()]
    return (
        {"where": f"{path}:{frames[-1].lineno}", "context": f"> {frames[-1].line}"} if frames else {"where": str(path)}
    )


def _in_module(module: ModuleType) -> list[Pass]:
    """Passes that the module made, in the order of its text; members of a group count as parts of it."""
    found = [v for v in vars(module).values() if isinstance(v, Pass)]
    found = [p for p in found if p.body is None or getattr(p.body, "__module__", "") == module.__name__]
    parts = {m.name for p in found for m in p.members}
    return list({p.name: p for p in found if p.name not in parts}.values())


def _of_package(entry: EntryPoint) -> tuple[str, list[Pass], str]:
    place = f"entry point {entry.name} = {entry.value}"
    dist = entry.dist
    origin = f"package {dist.name} {dist.version}" if dist is not None else f"package of {entry.value}"
    try:
        loaded = entry.load()
    except Exception as error:
        raise UsageError(
            f"{origin} cannot be loaded: {_short(error)}", where=place, hint="repair or uninstall the package"
        ) from error
    if isinstance(loaded, Pass):
        return origin, [loaded], place
    return origin, _in_module(loaded) if isinstance(loaded, ModuleType) else [], place
