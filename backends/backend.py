"""What a backend is: one object that answers for every op of a phase and builds programs from graphs in it.

A backend names itself, the dataclass of its options and the phase that it lowers from. Everything that generic code
wants of it, it asks through the methods below; `registry.py` finds it by name, `docs/backends.md` walks through one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from fretsaw.backends.built import Built
    from fretsaw.backends.lowering import Answer
    from fretsaw.ir import Graph
    from fretsaw.passes.api import Pass

O = TypeVar("O")  # noqa: E741  the options' dataclass
Tell = Callable[[str], None]


@dataclass(frozen=True)
class ModelFacts:
    """What a backend may know of the model beside its graph.

    Args:
        kind: ``decoder`` or ``encoder``.
        context: Most tokens of a text.
    """

    kind: str
    context: int


def _silent(text: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Work:
    """How a build goes about it. Nothing here changes a byte of the result.

    Args:
        progress: Told what is being built.
        note: Told what the user should know and what is no error: lost time, a cache that could not be used.
        jobs: Things that may be compiled at the same time.
    """

    progress: Tell = _silent
    note: Tell = _silent
    jobs: int = 1


class Backend(Protocol[O]):
    """A target of compilation. Derive from it to inherit what is not abstract; the first line of the docstring is what
    ``fretsaw backends`` says of it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name that it is registered and chosen by."""
        ...

    @property
    @abstractmethod
    def options(self) -> type[O]:
        """A frozen dataclass, every field with a default: ``--backend NAME:field=value``."""
        ...

    @property
    @abstractmethod
    def phase(self) -> str:
        """The phase that it lowers from; the pipeline runs up to it."""
        ...

    @abstractmethod
    def lowerings(self) -> Mapping[str, Answer]:
        """An answer for every op that is legal in the phase. Must not load the target's library."""
        ...

    @abstractmethod
    def build(self, graph: Graph, options: O, model: ModelFacts, work: Work) -> Built:
        """Compile a graph, whose ops all have a lowering.

        Args:
            options: As :meth:`settle` returned them.

        Raises:
            UsageError: options that the graph cannot be built with.
            LoweringError: a combination of ops that cannot be lowered, by name and place.
        """
        ...

    def passes(self, options: O) -> tuple[Pass, ...]:
        """Passes, configured, that run at the end of their phases after those that were asked for; by default none."""
        return ()

    def settle(self, options: O, model: ModelFacts) -> O:
        """The options for this model, before any work is done; by default as they are.

        Raises:
            UsageError: options that would have no effect on such a model, or that it cannot be built with.
        """
        return options
