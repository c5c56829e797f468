"""Import rules for elementwise ATen ops."""

from __future__ import annotations

import torch

from fretsaw.frontend.import_aten.table import Context, rule
from fretsaw.ir import Attr, DType, Value

UNARY = {
    "neg": "neg", "abs": "abs", "exp": "exp", "log": "log", "sqrt": "sqrt", "rsqrt": "rsqrt", "erf": "erf",
    "reciprocal": "reciprocal", "tanh": "tanh", "sigmoid": "sigmoid", "silu": "silu", "relu": "relu",
    "cos": "cos",
    "sin": "sin", "logical_not": "logical_not",
}  # fmt: skip
ARITHMETIC = {"add": "add", "sub": "sub", "mul": "mul", "div": "div", "remainder": "mod"}
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")


def _operand(c: Context, name: str, dtype: DType) -> Value:
    """A tensor or number argument as a value of ``dtype``."""
    raw = c.arguments.get(name)
    if isinstance(raw, (bool, int, float)):
        return c.scalar(raw, dtype)
    return c.cast(c.value(name), dtype)


def _unary(op: str) -> None:
    @rule(f"aten.{op}.default")
    def unary(c: Context) -> Value:
        return c.emit(UNARY[op], c.cast(c.value("self"), c.dtype if op != "logical_not" else "bool"))


def _arithmetic(op: str) -> None:
    @rule(f"aten.{op}.Tensor", f"aten.{op}.Scalar")
    def arithmetic(c: Context) -> Value:
        if c.arguments.get("alpha", 1) != 1:
            raise c.fail("argument alpha is not supported")
        return c.emit(ARITHMETIC[op], _operand(c, "self", c.dtype), _operand(c, "other", c.dtype))


def _compare(op: str) -> None:
    @rule(f"aten.{op}.Tensor", f"aten.{op}.Scalar")
    def compare(c: Context) -> Value:
        left = c.value("self")
        raw = c.arguments.get("other")
        if isinstance(raw, float) and left.tensor.dtype[0] in "iu":
            raise c.fail("comparing integers to a fraction is not supported")
        if isinstance(raw, (bool, int, float)):
            return c.emit(op, left, c.scalar(raw, left.tensor.dtype))
        right = c.value("other")
        common = c.dtype_of(torch.promote_types(c.torch_dtype("self"), c.torch_dtype("other")))
        return c.emit(op, c.cast(left, common), c.cast(right, common))


for _op in UNARY:
    _unary(_op)
for _op in ARITHMETIC:
    _arithmetic(_op)
for _op in COMPARE:
    _compare(_op)


@rule("aten.rsub.Scalar")
def _rsub(c: Context) -> Value:
    if c.arguments.get("alpha", 1) != 1:
        raise c.fail("argument alpha is not supported")
    return c.emit("sub", _operand(c, "other", c.dtype), _operand(c, "self", c.dtype))


@rule("aten.pow.Tensor_Scalar")
def _pow(c: Context) -> Value:
    x, exponent = c.cast(c.value("self"), c.dtype), c.number("exponent")
    simple: dict[float, str] = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}
    if exponent == 2:
        return c.emit("mul", x, x)
    if exponent in simple:
        return c.emit(simple[exponent], x)
    return c.emit("pow", x, c.scalar(exponent, c.dtype))


@rule("aten.maximum.default", "aten.minimum.default")
def _extreme(c: Context) -> Value:
    op = "maximum" if "maximum" in c.name else "minimum"
    return c.emit(op, _operand(c, "self", c.dtype), _operand(c, "other", c.dtype))


@rule("aten.clamp.default", "aten.clamp_min.default", "aten.clamp_max.default")
def _clamp(c: Context) -> Value:
    bounds: dict[str, Attr] = {k: c.number(k) for k in ("min", "max") if c.arguments.get(k) is not None}
    return c.emit("clamp", c.value("self"), **bounds)


@rule("aten.gelu.default")
def _gelu(c: Context) -> Value:
    return c.emit("gelu", c.value("self"), approximate=str(c.arguments["approximate"]))


@rule("aten.bitwise_not.default")
def _not(c: Context) -> Value:
    if c.dtype != "bool":
        raise c.fail("only booleans are supported")
    return c.emit("logical_not", c.value("self"))


@rule("aten.where.self")
def _where(c: Context) -> Value:
    return c.emit("where", c.value("condition"), _operand(c, "self", c.dtype), _operand(c, "other", c.dtype))


@rule("aten.masked_fill.Scalar")
def _masked_fill(c: Context) -> Value:
    number = c.arguments["value"]
    assert isinstance(number, (bool, int, float))
    return c.emit("where", c.value("mask"), c.scalar(number, c.dtype), c.value("self"))


@rule(
    "aten.to.dtype", "aten.to.device", "aten.to.dtype_layout", "aten.to.other", "aten.type_as.default",
    "aten._to_copy.default", "aten.clone.default", "aten.contiguous.default", "aten.alias.default",
    "aten.detach.default", "aten.lift_fresh_copy.default", "aten.lift_fresh.default",
)  # fmt: skip
def _convert(c: Context) -> Value:
    return c.cast(c.value("self"), c.dtype)


@rule("aten.dropout.default")
def _dropout(c: Context) -> Value:
    if c.arguments["train"] and c.arguments["p"]:
        raise c.fail("dropout in training mode is not supported")
    return c.value("input")
