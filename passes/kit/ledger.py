"""What a pass did, in numbers: the rows of ``evidence.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from fretsaw.ir import Graph, Node
from fretsaw.passes.api import Outcome, Pass, Stored
from fretsaw.passes.evidence.cost import Cost, cost
from fretsaw.passes.kit.options import Plain, plain

Evidence = Mapping[str, str | float | int]


@dataclass(frozen=True)
class LedgerEntry:
    """One pass.

    Args:
        sites: Module paths of the roots that were rewritten, one per edit.
        hit: Number of edits.
        demanded: Sites that the pass had to reach and did; 0 when it demands none.
        declined: (node, op, module path, reason) of sites left alone.
        seconds: Wall time of the pass without its check.
        options: Options of the pass, with their values.
        origin: ``built-in``, ``plugin FILE`` or ``package NAME VERSION``.
        requested: The user asked for the pass by name.
        check: ``status`` is ``passed``, ``measured: why no limit held`` or ``unchecked: why``; beside it the numbers of
            the comparison (docs/evidence.md).
        stored: Storage formats that changed, with bytes before and after, by constant or layer.
        cost_before: Of the graph before the pass, on one sequence of 512 tokens.
        cost_after: Of the graph after it.
    """

    name: str
    phase: str
    keeps: str
    hit: int
    demanded: int
    sites: tuple[str, ...]
    declined: tuple[tuple[str, str, str, str], ...]
    sweeps: int
    nodes_before: int
    nodes_after: int
    seconds: float
    check: Evidence
    options: Mapping[str, Plain] = field(default_factory=dict)
    origin: str = "built-in"
    requested: bool = False
    stored: tuple[Stored, ...] = ()
    cost_before: Cost | None = None
    cost_after: Cost | None = None

    @staticmethod
    def of(
        p: Pass, phase: str, before: Graph, outcome: Outcome, demanded: int, seconds: float, check: Evidence
    ) -> LedgerEntry:
        sites = tuple(n.loc.module or _name(n) for n in outcome.hits)
        done = {(_name(n), n.op) for n in outcome.hits}  # what stands there now is looked at once more, and left alone
        left = [d for d in outcome.declines if (_name(d.at), d.at.op) not in done]
        declined = tuple(dict.fromkeys((_name(d.at), d.at.op, d.at.loc.module, d.reason) for d in left))
        cost_before = cost(before)
        cost_after = cost_before if outcome.graph is before else cost(outcome.graph)
        return LedgerEntry(
            p.name, phase, p.keeps, len(sites), demanded, sites, declined, outcome.sweeps, len(before.nodes),
            len(outcome.graph.nodes), seconds, check, plain(p.options), p.origin,
            stored=outcome.stored, cost_before=cost_before, cost_after=cost_after,
        )  # fmt: skip

    def to_json(self) -> dict[str, object]:
        """Plain data without the time, so that two compiles write the same bytes."""
        out = asdict(self)
        del out["seconds"]
        if not self.stored:
            del out["stored"]
        return out


def _name(node: Node) -> str:
    return f"%{node.results[0].name}" if node.results else node.op
