"""Find the first pass that breaks the limit, then the first of its sites.

Passes are measured one by one in their order. Sites are searched by halves: the pass is run again for its first k edits
only, and what is found is a site with the limit kept before it and broken after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fretsaw.ir import Graph, Node, verify
from fretsaw.passes.api import Pass
from fretsaw.passes.kit.driver import run_rules
from fretsaw.passes.pipeline import enter, plan_passes, run_step
from fretsaw.tools.bisect.meter import Meter

Report = Callable[[str, int, int], None]  # what runs, how many done, of how many


@dataclass(frozen=True)
class Measured:
    """The metric after one pass."""

    phase: str
    name: str
    edits: int
    value: float


@dataclass(frozen=True)
class Site:
    """One edit: the graph with all edits before it, the one with it too, and its root.

    Args:
        number: Of the edit in the order of the driver, from 1; ``total`` edits does the pass make.
        before_value, after_value: The metric without and with it.
    """

    root: Node
    number: int
    total: int
    before: Graph
    after: Graph
    before_value: float
    after_value: float


@dataclass(frozen=True)
class Culprit:
    """The first pass after which the limit is broken; ``site`` is None where the pass is not made of edits."""

    p: Pass
    requested: bool
    before: Graph
    after: Graph
    site: Site | None


@dataclass(frozen=True)
class Found:
    """Every measured pass in order, the last one the culprit where there is one."""

    measured: tuple[Measured, ...]
    culprit: Culprit | None


def bisect(
    graph: Graph, phases: Sequence[str], extra: Sequence[Pass], meter: Meter, report: Report | None = None
) -> Found:
    """Run the pipeline pass by pass and stop at the first that breaks the meter's limit.

    Raises:
        PassError, VerifyError: a pass fails by itself.
        UsageError: a requested pass does not belong to ``phases``.
    """
    plan = plan_passes(phases, extra)
    enter(graph, phases)
    measured: list[Measured] = []
    hits: dict[str, tuple[Node, ...]] = {}
    for number, step in enumerate(plan):
        if report:
            report(step.p.name, number, len(plan))
        outcome, _ = run_step(step, graph, hits.get(step.p.name, ()), None, False)
        hits[step.p.name] = hits.get(step.p.name, ()) + outcome.hits
        if outcome.graph is not graph:
            value = meter.value(outcome.graph)
            measured.append(Measured(step.phase, step.p.name, len(outcome.hits), value))
            if meter.breaks(value):
                site = first_site(step.p, graph, len(outcome.hits), meter)
                return Found(tuple(measured), Culprit(step.p, step.requested, graph, outcome.graph, site))
        graph = outcome.graph
        if number + 1 == len(plan) or plan[number + 1].phase != step.phase:
            graph = replace(graph, phase=step.phase)
            verify(graph, when=f"at the end of phase {step.phase}")
    return Found(tuple(measured), None)


def first_site(p: Pass, graph: Graph, total: int, meter: Meter) -> Site | None:
    """The edit of ``p`` whose application crosses the limit, by halves; None for a whole-graph pass.

    Args:
        graph: What the pass starts from; keeps the limit.
        total: Edits of the whole pass, after which the limit is broken.
    """
    if not p.roots or total == 0:
        return None
    members = p.members or (p,)
    good, bad = (0, graph, meter.value(graph)), None
    low, high = 0, total
    while bad is None or high - low > 1:
        k = high if bad is None else (low + high) // 2
        outcome = run_rules(graph, members, edits=k, debug=False)
        value = meter.value(outcome.graph)
        if meter.breaks(value):
            high, bad = k, (outcome, value)
        elif bad is None:
            return None  # the whole pass keeps the limit when its edits are counted: it does more than edit
        else:
            low, good = k, (k, outcome.graph, value)
    outcome, value = bad
    return Site(outcome.hits[-1], high, total, good[1], outcome.graph, good[2], value)
