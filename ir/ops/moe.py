"""Mixture of experts: router and expert MLPs over tokens x [T, D]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import expit

from fretsaw.ir.op import Array, Attr, AttrSpec, ShapeError, define_op, elements, get_op, per_operand, sizes, tensor
from fretsaw.ir.ops.norm import softmax
from fretsaw.ir.ops.reduce import top_k
from fretsaw.ir.types import INTS, TensorType, ValueType

Types = Sequence[ValueType]
Attrs = Mapping[str, Attr]


def _router_shape(types: Types, attrs: Attrs) -> Types:
    logits, k = tensor(types[0], "logits"), attrs["k"]
    experts = logits.shape[-1]
    if logits.rank != 2 or not isinstance(k, int) or not isinstance(experts, int) or not 1 <= k <= experts:
        raise ShapeError(f"cannot choose {k} of {logits}", "logits")
    return [TensorType("i64", (logits.shape[0], k)), TensorType(logits.dtype, (logits.shape[0], k))]


def _router(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    logits, k, order = arrays[0], int(attrs["k"]), attrs.get("softmax", "before")  # type: ignore[arg-type]
    if order == "after":
        picked, index = top_k(logits, k)
        return [index, softmax(picked, 1)]
    weight, index = top_k(softmax(logits, 1), k)
    if attrs.get("normalize", False):
        weight = weight / weight.sum(axis=-1, keepdims=True, dtype=weight.dtype)
    return [index, weight]


define_op(
    "router", "logits", flops=per_operand(5), shape=_router_shape, reference=_router,
    attrs={"k": AttrSpec(int, required=True), "normalize": AttrSpec(bool, False),
           "softmax": AttrSpec(str, "before", choices=("before", "after"))},
    doc="Choose k experts per token from logits [T, E] -> indices i64[T, k], weights [T, k]. Softmax over all experts "
    "before the choice, or over the chosen ones after it; normalize makes the weights sum to one.",
    example="router(%logits) {k = 2, normalize = true}",
)  # fmt: skip


def _experts_shape(types: Types, attrs: Attrs) -> Types:
    names = ("x", "index", "weight", "gate_up", "down")
    x, index, weight, gate_up, down = (tensor(t, s) for t, s in zip(types, names, strict=False))
    if x.rank != 2 or index.rank != 2 or index.shape != weight.shape or index.shape[0] != x.shape[0]:
        raise ShapeError(f"needs x [T, D], index and weight [T, k]; got {x}, {index}, {weight}", "index")
    if index.dtype not in INTS or gate_up.rank != 3 or down.rank != 3:
        raise ShapeError(f"needs integer index and [E, 2F, D], [E, D, F]; got {index}, {gate_up}, {down}", "gate_up")
    e, two_f, d = gate_up.shape
    if d != x.shape[-1] or down.shape != (e, d, two_f // 2 if isinstance(two_f, int) else two_f):
        raise ShapeError(f"gate_up {gate_up} and down {down} do not fit x {x}", "down")
    return [x]


def activate(gate: Array, up: Array, attrs: Attrs) -> Array:
    """The gated activation of ``experts``; gate and up [..., F]."""
    act, limit = str(attrs.get("act", "silu")), attrs.get("limit")
    if act == "clamped_swiglu":  # GPT-OSS: clamp, sigmoid with slope alpha, up + 1
        assert isinstance(limit, (int, float))
        alpha = gate.dtype.type(attrs.get("alpha", 1.702))
        gate, up = np.minimum(gate, gate.dtype.type(limit)), np.clip(up, -limit, limit).astype(up.dtype)
        clamped: Array = (up + 1) * (gate * expit(gate * alpha))
        return clamped
    name, options = ("gelu", {"approximate": "tanh"}) if act == "gelu_tanh" else (act, {})
    out: Array = get_op(name).reference([gate], options)[0] * up
    return out


def _experts(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
    x, index, weight, gate_up, down = arrays[:5]
    biases = arrays[5:]
    out = np.zeros_like(x)
    for e in range(gate_up.shape[0]):
        rows, slot = np.nonzero(index == e)
        if not rows.size:
            continue
        h = x[rows] @ gate_up[e].T  # [n, 2F]
        h = h + biases[0][e] if biases else h
        if attrs.get("layout", "concat") == "concat":
            gate, up = h[:, : h.shape[1] // 2], h[:, h.shape[1] // 2 :]
        else:
            gate, up = h[:, 0::2], h[:, 1::2]
        y = activate(gate, up, attrs) @ down[e].T  # [n, D]
        y = y + biases[1][e] if biases else y
        np.add.at(out, rows, y * weight[rows, slot][:, None])
    return [out]


def _experts_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    """Per token and chosen expert: two products, the gate, biases, the weighted sum. Other experts are free."""
    _, two_f, d = sizes(operands[3])
    products = 2 * d * two_f + 2 * d * (two_f // 2)
    biases = two_f + d if len(operands) > 5 else 0
    return elements(operands[1]) * (products + biases + two_f + 2 * d)  # activation and product are 2F


define_op(
    "experts", "x index weight gate_up down gate_up_bias? down_bias?", shape=_experts_shape, reference=_experts,
    flops=_experts_flops, weights=("gate_up", "down"),
    attrs={"act": AttrSpec(str, "silu", choices=("silu", "gelu", "gelu_tanh", "relu", "clamped_swiglu")),
           "layout": AttrSpec(str, "concat", choices=("concat", "interleaved")),
           "limit": AttrSpec((float, int)), "alpha": AttrSpec(float, 1.702)},
    doc="Sum over the chosen experts e of weight * down_e(act(gate_e x) * up_e x); gate_up is [E, 2F, D] with gate "
    "rows first (concat) or alternating (interleaved), down is [E, D, F].",
    example="experts(%x, %index, %weight, %gate_up, %down)",
)  # fmt: skip
