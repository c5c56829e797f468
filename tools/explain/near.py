"""What a pass says at every site: hits, near misses ranked by how deep the rule got, and roots of another shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import networkx as nx

from fretsaw.ir import Graph, Node
from fretsaw.ir.views import data_flow
from fretsaw.passes.api import Decline, Outcome, Pass
from fretsaw.passes.kit.driver import ANY, verdicts


@dataclass(frozen=True)
class NearMiss:
    """A site that a rule looked at and left alone.

    Args:
        rule: Name of the rule, a member of the pass.
        root: Where the rule started; None where a whole-graph pass tells no root.
        depth: Edges of the data flow from the root to the node that stood in the way.
    """

    rule: str
    root: Node | None
    decline: Decline
    depth: int


@dataclass(frozen=True)
class Explanation:
    """One pass on one graph.

    Args:
        before, after: The graph that the pass met, and the one it left.
        hits: Roots that were rewritten.
        misses: The deepest first, then in program order. Sites that have the wanted form are in ``already``.
        shapeless: Nodes of a root op at which no rule saw its shape.
    """

    p: Pass
    before: Graph
    after: Graph
    hits: tuple[Node, ...]
    misses: tuple[NearMiss, ...]
    already: tuple[NearMiss, ...]
    shapeless: tuple[Node, ...]


def explain(p: Pass, graph: Graph) -> Explanation:
    """Run ``p`` on ``graph`` and ask its rules about everything that is left.

    Raises:
        PassError: a rule fails, or does not come to rest.
    """
    outcome = p.run(graph)
    if not p.roots:
        found = [NearMiss(p.name, None, d, 0) for d in outcome.declines]
        return _sorted(p, graph, outcome, found, ())
    found, shapeless = _ask(p, outcome)
    return _sorted(p, graph, outcome, found, shapeless)


def _ask(p: Pass, outcome: Outcome) -> tuple[list[NearMiss], tuple[Node, ...]]:
    after = outcome.graph
    flow = nx.Graph(data_flow(after))
    found: list[NearMiss] = []
    silent: dict[int, Node] = {}
    spoke: set[int] = set()
    for member, root, verdict in verdicts(after, p.members or (p,)):
        if isinstance(verdict, Decline):
            found.append(NearMiss(member.name, root, verdict, _depth(after, flow, root, verdict.at)))
            spoke.add(id(root))
        elif verdict is None:
            silent[id(root)] = root
    known = {id(miss.decline.at) for miss in found}
    found += [NearMiss(p.name, d.at, d, 0) for d in outcome.declines if id(d.at) not in known and _refused(d, after)]
    return found, tuple(root for key, root in silent.items() if key not in spoke)


def _refused(decline: Decline, graph: Graph) -> bool:
    """The driver refused the rule's edit: the rules themselves do not tell that."""
    return "graph output" in decline.reason and any(n is decline.at for n in graph.nodes)


def _depth(graph: Graph, flow: nx.Graph[int], root: Node, at: Node) -> int:
    try:
        start, end = graph.position(root), graph.position(at)
        return int(nx.shortest_path_length(flow, start, end))
    except (KeyError, nx.NetworkXNoPath):  # the node is no node of this graph, or nothing joins the two
        return 0


def _sorted(
    p: Pass, graph: Graph, outcome: Outcome, found: Sequence[NearMiss], shapeless: tuple[Node, ...]
) -> Explanation:
    misses = sorted((m for m in found if not m.decline.already), key=lambda m: -m.depth)
    already = tuple(m for m in found if m.decline.already)
    return Explanation(p, graph, outcome.graph, outcome.hits, tuple(misses), already, shapeless)


def root_ops(p: Pass) -> Iterator[str]:
    """Ops that the pass starts from, ``any op`` for a rule that is tried everywhere."""
    yield from ("any op" if op == ANY else op for op in sorted(p.roots))
