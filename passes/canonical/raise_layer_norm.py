"""Raise LayerNorm written out to one op.

    %c = sub(%x, mean(%x) {last, keepdims})
    %y = rms_norm(%c, gain?)              ==>     %y = layer_norm(%x, gain?)

    %n = layer_norm(%x, gain)
    %y = add(%n, bias)                    ==>     %y = layer_norm(%x, gain, bias)

Why:    a norm of centred values is a LayerNorm; `raise_rms_norm` has already found the rest of it.
Needs:  the mean is over the last axis; the bias a constant along it.
Keeps:  algebra.
Stops:  each edit leaves one rms_norm or one add fewer.
Source: arXiv:1607.06450.
"""

from __future__ import annotations

from collections.abc import Sequence

from fretsaw.ir import Graph, Node
from fretsaw.passes.api import Decline, Edit, rule, rules
from fretsaw.passes.kit.match import either, flat_const, last_axis, made_by


@rule(root="rms_norm", phase="canonical", keeps="algebra")
def raise_centred_norm(root: Node, g: Graph) -> Edit | Decline | None:
    """``rms_norm(x - mean(x))`` as a LayerNorm."""
    centred = made_by(g, root["x"], "sub")
    mean = made_by(g, centred["b"], "mean") if centred is not None else None
    if centred is None or mean is None or mean["x"] != centred["a"]:
        return None
    if mean.attr("axis") != last_axis(mean["x"]) or not mean.attr("keepdims"):
        return Decline("the mean is not over the last axis", at=mean)
    edit = Edit()
    edit.rewrite_node(root, "layer_norm", [centred["a"], *root.operands[1:]], dict(root.attrs))
    return edit


@rule(root="add", phase="canonical", keeps="algebra")
def absorb_bias(root: Node, g: Graph) -> Edit | Decline | None:
    """``layer_norm(x, gain) + bias`` as one norm."""
    for normed, bias in either(root):
        norm = made_by(g, normed, "layer_norm")
        if norm is None or bias not in g.consts:
            continue
        if norm.get("gain") is None or norm.get("bias") is not None:
            return Decline("the norm has no gain, or has a bias already", at=norm)
        shape = bias.tensor.shape
        if not shape or any(d != 1 for d in shape[:-1]) or shape[-1] != norm.out.tensor.shape[-1]:
            return Decline("the summand does not lie along the last axis", at=root)
        if root.out.type != norm.out.type:
            return Decline("the sum is wider than the norm", at=root)
        edit = Edit()
        flat = flat_const(edit, g, bias)
        edit.rewrite_node(root, "layer_norm", [norm["x"], norm["gain"], flat], dict(norm.attrs))
        return edit
    return None


def centred_norms(graph: Graph) -> Sequence[Node]:
    """Norms of a value less its mean."""
    out = []
    for node in graph.nodes:
        centred = made_by(graph, node["x"], "sub") if node.op == "rms_norm" else None
        mean = made_by(graph, centred["b"], "mean") if centred is not None else None
        if centred is not None and mean is not None and mean["x"] == centred["a"]:
            out.append(node)
    return out


raise_layer_norm = rules(
    "raise_layer_norm", (raise_centred_norm, absorb_bias), doc=__doc__, phase="canonical", clears=centred_norms
)
