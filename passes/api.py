"""Declaring passes: ``@rule`` for a rewrite around one root, ``@graph_pass`` for a function of the whole graph.

A pass says what it keeps (``bits``: identical outputs; ``algebra``: only rounding moves; ``budget``: an approximation)
and which sites it must reach. It never changes a graph: it returns edits, or a new graph.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from fretsaw.ir import Graph, Node
from fretsaw.passes.kit.contract import Anything, AtLeast, Cleared, Contract, Layers, OnePer, SiteFn
from fretsaw.passes.kit.edit import Decline, Edit
from fretsaw.passes.kit.inspector import Inspect
from fretsaw.passes.kit.options import default_of, fill

Keeps = Literal["bits", "algebra", "budget"]
Verdict = Edit | Decline | None  # None: the root has not even the shape that the rule looks for
RuleFn = Callable[[Node, Graph], Verdict]
Sites = Contract | Callable[[Any], Contract]  # a function of the options where the options say which sites


@dataclass(frozen=True)
class Stored:
    """One constant, or the cache of one layer, whose storage format changed.

    Args:
        name: The constant's name, or the module path of the layer.
        bytes_before: Of the constant, or of one token in the cache.
    """

    name: str
    before: str
    after: str
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Outcome:
    """What a pass did.

    Args:
        graph: The graph after it; the same object when nothing changed.
        hits: Roots that were rewritten.
        declines: Sites that were left alone, with reasons, as seen at the end.
        sweeps: How often the graph was walked.
        keeps: What this run kept, where it is more than the pass promises; checked like a promise. None: as promised.
        stored: What is kept in another storage format now, by site.
    """

    graph: Graph
    hits: tuple[Node, ...] = ()
    declines: tuple[Decline, ...] = ()
    sweeps: int = 1
    keeps: Keeps | None = None
    stored: tuple[Stored, ...] = ()


@dataclass(frozen=True)
class Pass:
    """A named rewrite with its contract.

    Args:
        doc: The docstring of its module: drawing, Why, Needs, Keeps, Stops, Source.
        keeps: What stays equal.
        phase: The phase that it helps to reach.
        body: The function as its author wrote it: ``(root, graph)`` of a rule, ``(graph)`` of a graph pass, with the
            options as last argument where the pass has any. None for a group of rules.
        demands: The contract, or a function from the options to it.
        roots: Ops that a rule starts from, empty for graph passes.
        members: The rules of a group.
        rounds_constants: It replaces a constant that the model holds in 32 bits by the number that is meant, so in
            64 bits the outputs differ by that rounding.
        options: An instance of a frozen dataclass, or None.
        after: Passes that must have run before this one.
        conflicts: Passes that must not run in the same compile.
        repeats: It may be requested more than once.
        origin: ``built-in``, ``plugin FILE`` or ``package NAME VERSION``.
        begins: From the options to the number of first tokens of a text at which the pass changes nothing. Where it is
            given, checks run over a longer text (docs/evidence.md).
        inspect: Makes an inspector of the graph after the pass, which measures what is the pass's own on that text.
    """

    name: str
    doc: str
    keeps: Keeps
    phase: str
    body: Callable[..., Any] | None = field(default=None, compare=False)
    demands: Sites = field(default=AtLeast(1), compare=False)
    roots: frozenset[str] = frozenset()
    members: tuple[Pass, ...] = ()
    rounds_constants: bool = False
    options: object | None = None
    after: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    repeats: bool = False
    origin: str = field(default="built-in", compare=False)
    begins: Callable[[Any], int] | None = field(default=None, compare=False)
    inspect: Inspect | None = field(default=None, compare=False)

    @property
    def acts_from(self) -> int | None:
        """First position of a text that the pass can change, where it says so."""
        return None if self.begins is None else self.begins(self.options)

    @cached_property
    def fn(self) -> RuleFn | None:
        """The function of a single rule with its options filled in; None for groups and graph passes."""
        body, options = self.body, self.options
        if body is None or not self.roots:
            return None
        return body if options is None else lambda root, g: body(root, g, options)

    @property
    def sites(self) -> Contract:
        """The contract under the options that the pass has."""
        return self.demands if isinstance(self.demands, Contract) else self.demands(self.options)

    def run(self, graph: Graph, *, debug: bool | None = None) -> Outcome:
        """Apply the pass.

        Args:
            debug: Also check that rules change nothing behind the driver's back and that their order does not matter;
                None: as :func:`fretsaw.passes.kit.driver.debugging` says.
        """
        if self.roots:
            from fretsaw.passes.kit.driver import run_rules

            return run_rules(graph, self.members or (self,), debug=debug)
        assert self.body is not None, f"{self.name} has no function"
        outcome = self.body(graph) if self.options is None else self.body(graph, self.options)
        assert isinstance(outcome, Outcome), f"{self.name} returned {type(outcome).__name__}, not an Outcome"
        return outcome

    def configured(self, given: Mapping[str, object]) -> Pass:
        """The same pass with other options; strings are parsed by the types of the fields.

        Raises:
            UsageError: unknown option or unfit value.
        """
        options = fill(self.name, self.options, given)
        members = tuple(replace(m, options=options) if type(m.options) is type(options) else m for m in self.members)
        return replace(self, options=options, members=members) if given else self


def rule(
    *,
    root: str | Sequence[str],
    phase: str,
    keeps: Keeps,
    clears: SiteFn | None = None,
    sites: Sites | None = None,
    options: object | None = None,
    after: Sequence[str] = (),
    conflicts: Sequence[str] = (),
    repeats: bool = False,
    rounds_constants: bool = False,
) -> Callable[[Callable[..., Verdict]], Pass]:
    """Make a pass of a pure function ``(root, graph[, options]) -> Edit | Decline | None``.

    Args:
        root: Ops at whose nodes the function is tried; ``*``: every node.
        clears: Short for ``sites=Cleared(clears)``.
        sites: The contract, or a function from the options to it. Without one, a requested pass must reach a site.
        options: Class of the options, a frozen dataclass with a default for every field.
    """
    roots = frozenset([root] if isinstance(root, str) else root)

    def wrap(fn: Callable[..., Verdict]) -> Pass:
        return Pass(
            fn.__name__, _doc(fn), keeps, phase, fn, _demands(clears, sites), roots, rounds_constants=rounds_constants,
            options=_options(fn.__name__, options), after=tuple(after), conflicts=tuple(conflicts), repeats=repeats,
        )  # fmt: skip

    return wrap


def rules(
    name: str,
    members: Sequence[Pass],
    *,
    doc: str,
    phase: str,
    clears: SiteFn | None = None,
    sites: Sites | None = None,
    options: object | None = None,
    after: Sequence[str] = (),
    conflicts: Sequence[str] = (),
) -> Pass:
    """Several rules applied together until none fires; the weakest of their guarantees holds. Members with options of
    the same class as the group's get the group's."""
    order: Sequence[Keeps] = ("bits", "algebra", "budget")
    keeps = max((m.keeps for m in members), key=order.index)
    roots = frozenset[str]().union(*(m.roots for m in members))
    return Pass(
        name, doc.strip(), keeps, phase, None, _demands(clears, sites), roots, tuple(members),
        options=_options(name, options), after=tuple(after), conflicts=tuple(conflicts),
    )  # fmt: skip


def graph_pass(
    *,
    phase: str,
    keeps: Keeps,
    clears: SiteFn | None = None,
    sites: Sites | None = None,
    options: object | None = None,
    after: Sequence[str] = (),
    conflicts: Sequence[str] = (),
    repeats: bool = False,
    begins: Callable[[Any], int] | None = None,
    inspect: Inspect | None = None,
) -> Callable[[Callable[..., Outcome]], Pass]:
    """Make a pass of a function ``(graph[, options]) -> Outcome`` of the whole graph. Arguments as in :func:`rule`.

    Args:
        begins: From the options to the number of first tokens of a text at which the pass changes nothing.
        inspect: Makes an inspector of the graph after the pass.
    """

    def wrap(fn: Callable[..., Outcome]) -> Pass:
        return Pass(
            fn.__name__, _doc(fn), keeps, phase, fn, _demands(clears, sites), options=_options(fn.__name__, options),
            after=tuple(after), conflicts=tuple(conflicts), repeats=repeats, begins=begins,
            inspect=inspect,
        )  # fmt: skip

    return wrap


def _demands(clears: SiteFn | None, sites: Sites | None) -> Sites:
    assert clears is None or sites is None, "clears= is short for sites=Cleared(...): give one of them"
    if clears is not None:
        return Cleared(clears)
    return sites if sites is not None else AtLeast(1)


def _options(name: str, options: object | None) -> object | None:
    return None if options is None else default_of(name, options)


def _doc(fn: Callable[..., object]) -> str:
    module = sys.modules.get(fn.__module__)
    return (getattr(module, "__doc__", None) or fn.__doc__ or "").strip()


def apply(p: Pass, graph: Graph) -> tuple[Graph, tuple[Decline, ...]]:
    """Run one pass alone; returns the graph after it (the same object when nothing changed) and the declines."""
    outcome = p.run(graph)
    return outcome.graph, outcome.declines


__all__ = [
    "Anything", "AtLeast", "Cleared", "Contract", "Decline", "Edit", "Keeps", "Layers", "OnePer", "Outcome", "Pass",
    "Stored", "Verdict", "apply", "graph_pass", "rule", "rules",
]  # fmt: skip
