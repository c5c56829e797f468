"""From what was asked for to passes that can run together: names found, options filled in, rules of composition kept.

Everything is checked before a checkpoint is read, and every error says where the wish stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fretsaw.ir.errors import UsageError
from fretsaw.passes.api import Pass
from fretsaw.passes.kit.recipe import Recipe, Step
from fretsaw.passes.kit.registry import Registry


@dataclass(frozen=True)
class _Planned:
    """A pass of the whole order; ``step`` is None where the pipeline brings it."""

    p: Pass
    step: Step | None = None


def compose(
    recipe: Recipe, plugins: Sequence[Path] = (), registry: Registry | None = None
) -> tuple[Registry, tuple[Pass, ...]]:
    """The registry with all plugins, and the requested passes in order with their options.

    Raises:
        UsageError: a plugin that cannot be loaded, an unknown pass, an unfit option, or passes that do not go together.
    """
    registry = registry or Registry.standard()
    for path in dict.fromkeys([*recipe.plugins, *plugins]):
        registry = registry.with_plugin(path)
    passes = tuple(_resolve(registry, step) for step in recipe.steps)
    check_together(recipe.steps, passes)
    return registry, passes


def _resolve(registry: Registry, step: Step) -> Pass:
    try:
        return registry.find(step.name).configured(step.options)
    except UsageError as error:
        raise UsageError(error.what, where=step.place.where, context=step.place.context, hint=error.hint) from None


def check_together(
    steps: Sequence[Step], passes: Sequence[Pass], pipeline: Mapping[str, Sequence[Pass]] | None = None
) -> None:
    """Hold requested passes to ``repeats``, ``after`` and ``conflicts``, in the order in which they will run.

    Raises:
        UsageError: names both passes and where the later one was asked for.
    """
    from fretsaw.passes.pipeline import PIPELINE

    _check_repeats(steps, passes)
    order = list(_order(steps, passes, PIPELINE if pipeline is None else pipeline))
    names = [planned.p.name for planned in order]
    for at, planned in enumerate(order):
        if planned.step is not None:
            for name in planned.p.after:
                if name not in names[:at]:
                    raise _needs(planned.step, planned.p, name, later=name in names[at:])
    for at, planned in enumerate(order):
        for name in planned.p.conflicts:
            if name in names:
                other = names.index(name)
                raise _conflict(order[min(at, other)], order[max(at, other)])


def _check_repeats(steps: Sequence[Step], passes: Sequence[Pass]) -> None:
    first: dict[str, Step] = {}
    for step, p in zip(steps, passes, strict=True):
        if p.name in first and not p.repeats:
            raise _at(step, f"{p.name} is requested twice, and it runs once",
                      f"the first is at {first[p.name].place.where}: remove one")  # fmt: skip
        first.setdefault(p.name, step)


def _order(steps: Sequence[Step], passes: Sequence[Pass], pipeline: Mapping[str, Sequence[Pass]]) -> Iterator[_Planned]:
    """Every pass in the order of a compile: phase by phase, requested ones at the end of theirs."""
    for phase, standard in pipeline.items():
        yield from (_Planned(p) for p in standard)
        yield from (_Planned(p, step) for step, p in zip(steps, passes, strict=True) if p.phase == phase)


def _needs(step: Step, p: Pass, name: str, *, later: bool) -> UsageError:
    if later:
        return _at(step, f"{p.name} has to run after {name}, which comes later", f"ask for {name} first")
    return _at(step, f"{p.name} has to run after {name}, which is not asked for",
               f"ask for {name} first: --pass {name}, or a [[pass]] above this one")  # fmt: skip


def _conflict(first: _Planned, second: _Planned) -> UsageError:
    """Reported where the later of the two was asked for; one of them was."""
    step = second.step or first.step
    assert step is not None, f"{first.p.name} and {second.p.name} of the pipeline exclude each other"
    other = first if step is second.step else second
    place = f"asked for at {other.step.place.where}" if other.step else f"part of every compile, phase {other.p.phase}"
    return _at(step, f"{first.p.name} and {second.p.name} exclude each other", f"{other.p.name} is {place}")


def _at(step: Step, what: str, hint: str) -> UsageError:
    return UsageError(what, where=step.place.where, context=step.place.context, hint=hint)
