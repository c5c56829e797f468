"""Places for the boxes of a small directed graph, in ranks from top to bottom.

Why:    a layer has 20 to 60 nodes; drawn in program order its arrows cross, and Graphviz is not everywhere.
How:    rank = longest path; edges over several ranks get a place in each of them; barycentre sweeps order a rank;
        places along it are the least-squares answer to "stay near your neighbours, do not overlap".
Source: Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures", IEEE SMC 1981.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GAP = 22.0  # between boxes of a rank
LANE = 10.0  # width of an edge that passes a rank
SWEEPS = 12
Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Centres of the boxes, (x, rank) each, and for every edge the points that it passes, both ends included."""

    places: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]
    width: float
    ranks: int


def layered(widths: Sequence[float], edges: Sequence[tuple[int, int]]) -> Layout:
    """Lay out ``len(widths)`` boxes. Every edge goes from a lower to a higher number (the order of a program)."""
    rank = _ranks(len(widths), edges)
    width, level = list(widths), list(rank)
    chains: list[list[int]] = []
    for a, b in edges:
        chain = [a]
        for between in range(rank[a] + 1, rank[b]):
            chain.append(len(width))
            width.append(LANE)
            level.append(between)
        chains.append([*chain, b])
    above: dict[int, list[int]] = {i: [] for i in range(len(width))}
    below: dict[int, list[int]] = {i: [] for i in range(len(width))}
    for chain in chains:
        for a, b in zip(chain, chain[1:], strict=False):
            below[a].append(b)
            above[b].append(a)
    rows: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for i, at in enumerate(level):
        rows[at].append(i)
    _order(rows, above, below)
    x = _places(rows, width, above, below)
    left = min((x[i] - width[i] / 2 for i in x), default=0.0)
    right = max((x[i] + width[i] / 2 for i in x), default=0.0)
    point = {i: (x[i] - left, float(level[i])) for i in x}
    routes = tuple(tuple(point[i] for i in chain) for chain in chains)
    return Layout(tuple(point[i] for i in range(len(widths))), routes, right - left, len(rows))


def _ranks(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Longest path from a source; a box without predecessors stands right above its first reader."""
    rank = [0] * count
    for a, b in sorted(edges, key=lambda e: e[1]):  # all edges into a box before those out of it
        rank[b] = max(rank[b], rank[a] + 1)
    entered = {b for _, b in edges}
    for a in range(count):
        readers = [rank[b] for x, b in edges if x == a]
        if a not in entered and readers:
            rank[a] = min(readers) - 1
    return rank


def _order(rows: list[list[int]], above: Mapping[int, list[int]], below: Mapping[int, list[int]]) -> None:
    """Sort each row by the mean place of its neighbours, down and up in turn."""
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        near = above if down else below
        for row, beside in _pairs(rows, down):
            at = {i: n for n, i in enumerate(beside)}
            mean = {i: sum(at[j] for j in near[i]) / len(near[i]) if near[i] else float(n) for n, i in enumerate(row)}
            row.sort(key=lambda i: mean[i])


def _pairs(rows: list[list[int]], down: bool) -> list[tuple[list[int], list[int]]]:
    """(row, the row that it is ordered by), in the order of a sweep."""
    pairs = list(zip(rows[1:], rows, strict=False))
    return pairs if down else [(b, a) for a, b in reversed(pairs)]


def _places(
    rows: list[list[int]], width: Sequence[float], above: Mapping[int, list[int]], below: Mapping[int, list[int]]
) -> dict[int, float]:
    x: dict[int, float] = {}
    for row in rows:
        _spread(row, [0.0] * len(row), width, x)
    for sweep in range(SWEEPS):
        near = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else list(reversed(rows)):
            wanted = [sum(x[j] for j in near[i]) / len(near[i]) if near[i] else x[i] for i in row]
            _spread(row, wanted, width, x)
    return x


def _spread(row: Sequence[int], wanted: Sequence[float], width: Sequence[float], x: dict[int, float]) -> None:
    """Nearest places to ``wanted``, in order and without overlap: isotonic regression (pool adjacent violators)."""
    offset, offsets = 0.0, []
    for n, i in enumerate(row):
        offset += (width[row[n - 1]] + width[i]) / 2 + GAP if n else 0.0
        offsets.append(offset)
    pools: list[list[float]] = []  # [sum, count]
    for want, off in zip(wanted, offsets, strict=True):
        pools.append([want - off, 1.0])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            last = pools.pop()
            pools[-1] = [pools[-1][0] + last[0], pools[-1][1] + last[1]]
    flat = [total / n for total, n in pools for _ in range(int(n))]
    for i, place, off in zip(row, flat, offsets, strict=True):
        x[i] = place + off
