"""What a pass did."""

from __future__ import annotations

from dataclasses import dataclass

from fretsaw.ir import Graph, Node
from fretsaw.passes.kit.edit import Decline


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
