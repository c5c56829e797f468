"""Raise the choice of experts to one op.

    %v, %i = topk(softmax(%logits))               ==>   %i, %w = router(%logits) {k, softmax = before}
    %w = div(%v, sum(%v) {last, keepdims})                       normalize = true when the division is there

    %v, %i = topk(%logits)
    %w = softmax(%v)                              ==>   %i, %w = router(%logits) {k, softmax = after}

Why:    routing statistics, capacity and quantization passes take hold of it; one kernel.
Needs:  logits [T, E]; the values of topk have no other reader.
Keeps:  algebra.
Stops:  each edit leaves one topk fewer.
Source: Mixtral, arXiv:2401.04088; OLMoE, arXiv:2409.02060; gpt-oss model card, arXiv:2508.10925.
"""

from __future__ import annotations

from collections.abc import Sequence

from fretsaw.ir import Attr, Graph, Node, Value
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.kit.match import last_axis, made_by


@rule(root="topk", phase="canonical", keeps="algebra", clears=lambda g: router_sites(g))
def raise_router(root: Node, g: Graph) -> Edit | Decline | None:
    """The router around one ``topk``."""
    values, index = root.results
    before = _softmax_of(g, root["x"])
    logits, weight = root["x"], _softmax_reader(g, values)
    attrs: dict[str, Attr] = {"k": root.attr("k"), "softmax": "after"}
    if before is not None:
        logits, weight = before["x"], values
        attrs["softmax"] = "before"
        shared = _normalized(g, values)
        if isinstance(shared, Node):
            weight, attrs["normalize"] = shared.out, True
    if weight is None:
        return None
    if logits.tensor.rank != 2:
        return Decline(f"logits must be [T, E], are {logits.tensor}", at=root)
    if values in g.output_set or index in g.output_set:
        return Decline("the choice is a graph output", at=root)
    if attrs["softmax"] == "after" and len(g.uses(values)) != 1:
        return Decline("the chosen logits have other readers than the softmax", at=root)
    if "normalize" in attrs and len(g.uses(values)) != 2:
        return Decline("the weights are read both before and after they are normalized", at=root)
    edit = Edit()
    router = edit.insert_node("router", [logits], attrs, before=root, name=f"{index.name}.router")
    edit.redirect(index, router.results[0])
    edit.redirect(weight, router.results[1])
    return edit


def _softmax_of(g: Graph, value: Value) -> Node | None:
    node = made_by(g, value, "softmax")
    return node if node is not None and node.attr("axis") == last_axis(value) else None


def _softmax_reader(g: Graph, values: Value) -> Value | None:
    for use in g.uses(values):
        if use.node.op == "softmax" and use.node.attr("axis") == last_axis(values):
            return use.node.out
    return None


def _normalized(g: Graph, values: Value) -> Node | None:
    """The division of ``values`` by their sum."""
    for use in g.uses(values):
        if use.node.op != "div" or use.slot != "a":
            continue
        total = made_by(g, use.node["b"], "sum")
        if total is not None and total["x"] == values and total.attr("keepdims"):
            return use.node if total.attr("axis") == last_axis(values) else None
    return None


def router_sites(graph: Graph) -> Sequence[Node]:
    """Every topk on one side of a softmax."""
    return [
        n
        for n in graph.nodes
        if n.op == "topk"
        and (made_by(graph, n["x"], "softmax") or any(u.node.op == "softmax" for u in graph.uses(n.results[0])))
    ]
