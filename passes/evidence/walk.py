"""Comparing two graphs block by block on real activations.

    before   x0 -> [b1] -> x1 -> [b2] -> x2 -> [b3] -> y         x0, x1, x2: as the model computes them
    after    x0 -> [a1]    x1 -> [a2] -> x2'-> [a3] -> y'        here a2 gave another x2, so a3 goes on from it

A block that no edit touched is skipped. A block that gives another value at its cut than the one before is no mistake
yet: a pass may change what that value means as long as its readers make up for it. So the next block goes on from what
the changed one gave, and only outputs that differ are a mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fretsaw.ir import Graph
from fretsaw.passes.evidence.blocks import Block, common_cuts, split
from fretsaw.passes.evidence.compare import difference
from fretsaw.passes.evidence.trace import Trace
from fretsaw.passes.kit.cost import sequence_dims

Tolerance = Callable[[Graph], float]


@dataclass(frozen=True)
class Pieces:
    """Two graphs cut at the same values; one piece each when they are compared whole."""

    before: Graph
    after: Graph
    pairs: tuple[tuple[Block, Block], ...]
    changed: tuple[bool, ...]

    @staticmethod
    def of(before: Graph, after: Graph, cut_names: list[str]) -> Pieces:
        pairs = tuple(zip(split(before, cut_names), split(after, cut_names), strict=True))
        return Pieces(before, after, pairs, tuple(not old.same(new) for old, new in pairs))

    @property
    def skipped(self) -> int:
        return self.changed.count(False)


def shared_cuts(before: Graph, after: Graph, tokens: int) -> list[str]:
    """Names of the values at which both graphs can be cut."""
    return common_cuts(before, after, sequence_dims(before, tokens), sequence_dims(after, tokens))


@dataclass(frozen=True)
class Walk:
    """What a comparison found.

    Args:
        error: Largest difference at a cut or an output, over the largest magnitude there.
        where: The block with that difference.
        failed: The outputs differ by more than allowed.
        strayed: The first block whose result differed by more and was not made up for.
        moved: Cuts whose values mean something else after the pass.
    """

    error: float
    where: str
    failed: bool
    strayed: str
    moved: frozenset[str]


def walk(pieces: Pieces, trace: Trace, tolerance: Tolerance, *, wide: bool = False) -> Walk:
    """Run the changed blocks of both graphs and compare what comes out.

    Args:
        tolerance: Largest difference that is no change of meaning, from the block before the pass.
        wide: Run in float64.
    """
    worst, where, strayed, error = 0.0, "", "", 0.0
    carried: np.ndarray | None = None
    moved: set[str] = set()
    for (old, new), changed in zip(pieces.pairs, pieces.changed, strict=True):
        if not changed and carried is None:
            continue
        given = None if old.cut is None else trace.real[old.cut.name]
        want = trace.outputs(pieces.before, old, given, wide=wide)
        if carried is None:
            got = trace.outputs(pieces.after, new, given, wide=wide)
        else:
            got = trace.fresh_outputs(pieces.after, new, carried, wide=wide)
        error = difference(want, got)
        within = error <= tolerance(old.graph)
        carried, strayed = (None, "") if within else (got[0], strayed or new.name)
        moved |= set() if within else {new.graph.outputs[0].name}
        if (within or new is pieces.pairs[-1][1]) and error >= worst:
            worst, where = error, new.name
    return Walk(worst, where, carried is not None, strayed, frozenset(moved))
