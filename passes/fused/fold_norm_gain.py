"""Fold the gain and bias of a norm into the weights of every projection that reads it.

    %n = rms_norm(%x, gain)                       %n' = rms_norm(%x)
    %y = linear(%n, W, b?)               ==>      %y = linear(%n', W * gain, b?)
    %e = experts(%n, .., gate_up, ..)    ==>      %e = experts(%n', .., gate_up * gain, ..)

    %n = layer_norm(%x, gain, bias)      ==>      %n' = layer_norm(%x)
    %y = linear(%n, W, b?)                        %y = linear(%n', W * gain, W bias + b)

Why:    rotations of the residual stream and merges of projections across layers need norms without a gain; the
        multiply leaves the token loop.
Needs:  gain and weights constant, weights kept in their dtype (a product of two numbers in bf16 is none in bf16, so
        the weight would take twice the memory to spare a multiply), no weight with a second reader; all readers are
        projections, directly or through one reshape that keeps the features last. Experts take a gain but no bias.
Keeps:  algebra: a rounding moves from the activation to the weight.
Stops:  each edit leaves one norm with a gain fewer.
Source: SliceGPT, arXiv:2401.15024 (norm scale absorbed into the adjacent weight).
"""

from __future__ import annotations

from fretsaw.ir import Const, Graph, Node, OpData, TensorType, Value
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.kit.match import narrow_reason

WEIGHT = {"linear": "weight", "experts": "gate_up"}
INPUT = {"linear": "input", "experts": "x"}


@rule(root=("rms_norm", "layer_norm"), phase="fused", keeps="algebra")
def fold_norm_gain(norm: Node, g: Graph) -> Edit | Decline | None:
    """The edit for one ``norm``, or why not."""
    gain, bias = norm.get("gain"), norm.get("bias")
    if gain is None:
        return None
    if gain not in g.consts or (bias is not None and bias not in g.consts):
        return Decline("the gain or bias of the norm is computed", at=norm)
    edit = Edit()
    plain = edit.insert_node(
        norm.op, [norm["x"]], {"eps": norm.attr("eps")}, before=norm, name=f"{norm.out.name}.plain"
    )
    declined = _fold(edit, g, norm, plain.out, gain, bias)
    return declined or (edit if edit.rewritten else None)  # a norm that nothing reads is none of our business


def _fold(edit: Edit, g: Graph, at: Node, plain: Value, gain: Value, bias: Value | None) -> Decline | None:
    """Make every reader of ``at`` read ``plain`` instead; the reason and node where one cannot."""
    if at.out in g.output_set:
        return Decline("the norm is a graph output, its gain is seen", at=at)
    for use in g.uses(at.out):
        reader = use.node
        if reader.op == "reshape" and at.op != "reshape" and reader.out.tensor.shape[-1] == gain.tensor.shape[-1]:
            shape = reader.out.tensor.shape
            moved = edit.insert("reshape", plain, before=reader, name=f"{reader.out.name}.plain", shape=shape)
            declined = _fold(edit, g, reader, moved, gain, bias)
        else:
            declined = _fold_reader(edit, g, reader, use.slot, plain, gain, bias)
        if declined is not None:
            return declined
    return None


def _fold_reader(
    edit: Edit, g: Graph, reader: Node, slot: str, plain: Value, gain: Value, bias: Value | None
) -> Decline | None:
    if INPUT.get(reader.op) != slot:
        return Decline(f"its reader is {reader.op}, not a projection", at=reader)
    weight = reader[WEIGHT[reader.op]]
    if weight not in g.consts:
        return Decline("the weight is computed", at=reader)
    if len(g.uses(weight)) > 1:
        return Decline("the weight is tied; folding would fork it", at=reader)
    narrow = narrow_reason(g.consts[weight])
    if narrow:
        return Decline(narrow, at=reader)
    if bias is not None and reader.op != "linear":
        return Decline("the bias of the norm cannot be folded into experts", at=reader)
    operands = {weight: edit.const(f"{weight.name}.gained", _scaled(g.consts[weight], g.consts[gain]))}
    rest = [operands.get(v, v) for v in reader.operands[1:]]
    if bias is not None:
        own = reader.get("bias")
        if own is not None and own not in g.consts:
            return Decline("the bias is computed", at=reader)
        terms = [g.consts[bias], g.consts[weight], *([g.consts[own]] if own is not None else [])]
        kind = TensorType(weight.tensor.dtype, weight.tensor.shape[:1])
        rest = [rest[0], edit.const(f"{weight.name}.shift", Const(kind, OpData("linear", tuple(terms), ())))]
    edit.rewrite_node(reader, reader.op, [plain, *rest], dict(reader.attrs))
    return None


def _scaled(weight: Const, gain: Const) -> Const:
    """[.., O, D] * [D], computed when loaded."""
    return Const(weight.type, OpData("mul", (weight, gain), ()))
