"""Remove what nobody reads.

    %dead = op(%x)                    ==>     (nothing)

Why:    captured graphs carry results that only an unused output needed.
Needs:  no reader, no graph output, no effects.
Keeps:  bits, inputs, outputs.
Stops:  one backward walk finds all of them.
Source: common practice.
"""

from __future__ import annotations

from fretsaw.ir import Graph
from fretsaw.passes.api import Outcome, graph_pass
from fretsaw.passes.kit.liveness import prune


@graph_pass(phase="canonical", keeps="bits")
def dce(graph: Graph) -> Outcome:
    """Keep nodes that outputs or effects need, and the constants that those read."""
    after = prune(graph)
    kept = {id(n) for n in after.nodes}
    return Outcome(after, tuple(n for n in graph.nodes if id(n) not in kept))
