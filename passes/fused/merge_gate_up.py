"""Project gate and up of a gated MLP with one matrix.

    %g = linear(%x, Wg)                          %p = linear(%x, [Wg; Wu])
    %u = linear(%x, Wu)                 ==>      %g = slice(%p), %u = slice(%p)
    %y = mul(act(%g), %u)                        %y = mul(act(%g), %u)

Why:    one product reads %x once; the backend joins the activation to it.
Needs:  two linears of one value with constant weights that nothing else reads.
Keeps:  algebra (the products are the same; how a kernel splits them may differ).
Stops:  each edit leaves one linear fewer.
Source: GLU variants, arXiv:2002.05202; common practice.
"""

from __future__ import annotations

from collections.abc import Sequence

from fretsaw.ir import Graph, Node
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.fused.merge_linears import merge
from fretsaw.passes.kit.match import either, made_by

ACTIVATIONS = ("silu", "gelu", "relu", "sigmoid", "tanh")


@rule(root="mul", phase="fused", keeps="algebra", clears=lambda g: separate_gates(g))
def merge_gate_up(root: Node, g: Graph) -> Edit | Decline | None:
    """One projection for the product ``root``."""
    found = _gated(root, g)
    if found is None:
        return None
    gate, up = found
    if gate.op == "slice" and up.op == "slice":
        return Decline("one projection makes both", at=gate, already=True) if gate["x"] == up["x"] else None
    if gate.op != "linear" or up.op != "linear":
        return None
    if gate is up:
        return Decline("gate and up are one value", at=gate)
    return merge(g, [gate, up], "gate_up_proj")


def _gated(root: Node, g: Graph) -> tuple[Node, Node] | None:
    for left, right in either(root):
        act = made_by(g, left, *ACTIVATIONS)
        gate = made_by(g, act["x"], "linear", "slice") if act is not None else None
        up = made_by(g, right, "linear", "slice")
        if gate is not None and up is not None:
            return gate, up
    return None


def separate_gates(graph: Graph) -> Sequence[Node]:
    """Products of an activated projection and another projection of the same value."""
    out = []
    for node in graph.nodes:
        found = _gated(node, graph) if node.op == "mul" else None
        if not found or found[0] is found[1]:
            continue
        if all(n.op == "linear" for n in found) and found[0]["input"] == found[1]["input"]:
            out.append(node)
    return out
