"""Declaring passes: ``@rule`` for a rewrite around one root, ``@graph_pass`` for a function of the whole graph.

A pass says what it keeps (``bits``: identical outputs; ``algebra``: only rounding moves; ``budget``: an approximation)
and which sites it must reach. It never changes a graph: it returns edits, or a new graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fretsaw.ir import Graph, Node
from fretsaw.passes.kit.edit import Decline, Edit

Keeps = Literal["bits", "algebra", "budget"]
Verdict = Edit | Decline | None  # None: the root has not even the shape that the rule looks for
RuleFn = Callable[[Node, Graph], Verdict]
SiteFn = Callable[[Graph], Sequence[Node]]


@dataclass(frozen=True)
class Outcome:
    """What a pass did.

    Args:
        graph: The graph after it; the same object when nothing changed.
        hits: Roots that were rewritten.
        declines: Sites that were left alone, with reasons, as seen at the end.
        sweeps: How often the graph was walked.
    """

    graph: Graph
    hits: tuple[Node, ...] = ()
    declines: tuple[Decline, ...] = ()
    sweeps: int = 1


@dataclass(frozen=True)
class Pass:
    """A named rewrite with its contract.

    Args:
        run: Applies it to a graph.
        keeps: What stays equal.
        phase: The phase that it helps to reach.
        clears: Finds the sites that the pass has to reach; one still there after it is an error.
        roots: Ops that a rule starts from, empty for graph passes.
        fn: The function of a single rule.
        members: The rules of a group.
        rounds_constants: It replaces a constant that the model holds in 32 bits by the number that is meant, so in
            64 bits the outputs differ by that rounding.
    """

    name: str
    doc: str
    keeps: Keeps
    phase: str
    run: Callable[[Graph], Outcome] = field(compare=False)
    clears: SiteFn | None = field(default=None, compare=False)
    roots: frozenset[str] = frozenset()
    fn: RuleFn | None = field(default=None, compare=False)
    members: tuple[Pass, ...] = ()
    rounds_constants: bool = False


def rule(
    *, root: str | Sequence[str], phase: str, keeps: Keeps, clears: SiteFn | None = None, rounds_constants: bool = False
) -> Callable[[RuleFn], Pass]:
    """Make a pass of a pure function ``(root, graph) -> Edit | Decline | None`` tried at every node of op ``root``."""
    roots = frozenset([root] if isinstance(root, str) else root)

    def wrap(fn: RuleFn) -> Pass:
        from fretsaw.passes.kit.driver import run_rules

        def run(graph: Graph) -> Outcome:
            return run_rules(graph, (made,))

        made = Pass(fn.__name__, _doc(fn), keeps, phase, run, clears, roots, fn, rounds_constants=rounds_constants)
        return made

    return wrap


def rules(name: str, members: Sequence[Pass], *, doc: str, phase: str, clears: SiteFn | None = None) -> Pass:
    """Several rules applied together until none fires; the weakest of their guarantees holds."""
    order: Sequence[Keeps] = ("bits", "algebra", "budget")
    keeps = max((m.keeps for m in members), key=order.index)

    def run(graph: Graph) -> Outcome:
        from fretsaw.passes.kit.driver import run_rules

        return run_rules(graph, members)

    roots = frozenset[str]().union(*(m.roots for m in members))
    return Pass(name, doc.strip(), keeps, phase, run, clears, roots, members=tuple(members))


def graph_pass(
    *, phase: str, keeps: Keeps, clears: SiteFn | None = None
) -> Callable[[Callable[[Graph], Outcome]], Pass]:
    """Make a pass of a function of the whole graph."""

    def wrap(fn: Callable[[Graph], Outcome]) -> Pass:
        return Pass(fn.__name__, _doc(fn), keeps, phase, fn, clears)

    return wrap


def _doc(fn: Callable[..., object]) -> str:
    import sys

    module = sys.modules.get(fn.__module__)
    return (getattr(module, "__doc__", None) or fn.__doc__ or "").strip()


def apply(p: Pass, graph: Graph) -> tuple[Graph, tuple[Decline, ...]]:
    """Run one pass alone; returns the graph after it (the same object when nothing changed) and the declines."""
    outcome = p.run(graph)
    return outcome.graph, outcome.declines


__all__ = ["Decline", "Edit", "Keeps", "Outcome", "Pass", "Verdict", "apply", "graph_pass", "rule", "rules"]
