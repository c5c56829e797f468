"""Convex regions: sets of nodes that can be replaced by one node, because no path leaves the set and comes back.

Candidates are the wanted nodes that hang together with a seed. Two of them cannot both stay when a path joins them
through a node that is no candidate. "Joined through a foreign node" is a strict partial order, so the largest convex
set is a largest antichain of it that has the seed: by Dilworth and Koenig, what a minimum vertex cover of a bipartite
graph leaves. A largest antichain has everything between its members, or it could be larger, and so it is convex.

Source: Dilworth 1950 (doi:10.2307/1969503), Fulkerson 1956 (doi:10.1090/S0002-9939-1956-0078334-6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import networkx as nx

from fretsaw.ir import Graph, Node
from fretsaw.ir.views import DataFlow, data_flow, is_convex
from fretsaw.passes.kit.analysis.once import analysis


@dataclass(frozen=True)
class Regions:
    """Convex regions of one graph. Nodes are positions in ``graph.nodes``."""

    view: DataFlow

    def is_convex(self, region: set[int]) -> bool:
        """No path leaves ``region`` and comes back."""
        return is_convex(self.view, region)

    def around(self, seed: int, wanted: Callable[[Node], bool]) -> frozenset[int]:
        """The largest convex set of candidates that has ``seed``; of several the same one in every run.

        Candidates are the nodes for which ``wanted`` holds and that are connected with the seed through such nodes.
        The seed is one whether it is wanted or not.
        """
        candidates = self._hanging(seed, wanted)
        through = self._through_foreign(candidates)
        kept = [i for i in sorted(candidates) if not (through[i] >> seed | through[seed] >> i) & 1]
        return frozenset(_largest_antichain(kept, through))

    def _hanging(self, seed: int, wanted: Callable[[Node], bool]) -> set[int]:
        found, todo = {seed}, [seed]
        while todo:
            at = todo.pop()
            for i in (*self.view.successors(at), *self.view.predecessors(at)):
                if i not in found and wanted(self.view.nodes[i]["node"]):
                    found.add(i)
                    todo.append(i)
        return found

    def _through_foreign(self, candidates: set[int]) -> dict[int, int]:
        """For every node, as bits, the candidates that it reaches through a node that is no candidate."""
        reach: dict[int, int] = {}
        through: dict[int, int] = {}
        for i in sorted(self.view.nodes, reverse=True):  # positions are in the order of the program
            reach[i] = through[i] = 0
            for j in self.view.successors(i):
                inside = j in candidates
                reach[i] |= reach[j] | (inside << j)
                through[i] |= through[j] if inside else reach[j]
        return through


def _largest_antichain(nodes: list[int], order: dict[int, int]) -> list[int]:
    """The largest subset without two ``a``, ``b`` where bit ``b`` of ``order[a]`` is set; ``order`` is transitive."""
    pairs: nx.Graph[int] = nx.Graph()  # ``a`` on the left is -1 - a, ``b`` on the right is b
    pairs.add_edges_from((-1 - a, b) for a in nodes for b in nodes if order[a] >> b & 1)
    if not pairs:
        return nodes
    left = [n for n in pairs if n < 0]
    matching = nx.bipartite.hopcroft_karp_matching(pairs, left)
    cover = nx.bipartite.to_vertex_cover(pairs, matching, left)
    return [n for n in nodes if n not in cover and -1 - n not in cover]


@analysis
def regions(graph: Graph) -> Regions:
    """Regions of ``graph``, over its data flow and the order of its effects."""
    return Regions(data_flow(graph))
