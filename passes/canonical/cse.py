"""Compute equal things once.

    %a = op(%x) {..}
    %b = op(%x) {..}                  ==>     %a = op(%x) {..}, readers of %b read %a

Why:    every layer of a captured model widens the same cos and sin anew.
Needs:  same op, operands and attributes; no writes; for reads of a handle, no write to what they read between them.
Keeps:  bits.
Stops:  one walk in order finds all of them; a second finds none.
Source: common practice (value numbering).
"""

from __future__ import annotations

from fretsaw.ir import Graph
from fretsaw.passes.api import Outcome, graph_pass
from fretsaw.passes.kit.liveness import prune
from fretsaw.passes.kit.numbering import merge_equal


@graph_pass(phase="canonical", keeps="bits")
def cse(graph: Graph) -> Outcome:
    """Merge equal constants and equal nodes; a graph output is never merged away."""
    merged, hits = merge_equal(graph)
    return Outcome(graph) if merged is graph else Outcome(prune(merged), hits)
