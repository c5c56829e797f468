"""Import rules for products, embeddings and the norms that ATen has as single ops."""

from __future__ import annotations

from fretsaw.frontend.import_aten.table import Context, rule
from fretsaw.ir import Value


@rule("aten.linear.default")
def _linear(c: Context) -> Value:
    bias = c.optional("bias")
    operands = [c.value("input"), c.value("weight"), *([bias] if bias is not None else [])]
    return c.emit("linear", *operands)


@rule("aten.matmul.default", "aten.mm.default", "aten.bmm.default")
def _matmul(c: Context) -> Value:
    names = ("self", "other") if "matmul" in c.name else ("self", "mat2")
    return c.emit("matmul", *(c.value(n) for n in names))


@rule("aten.embedding.default")
def _embedding(c: Context) -> Value:
    return c.emit("embedding", c.value("indices"), c.value("weight"))


@rule("aten.layer_norm.default")
def _layer_norm(c: Context) -> Value:
    x, gain, bias = c.value("input"), c.optional("weight"), c.optional("bias")
    _check_last_axis(c)
    eps = c.arguments["eps"]
    assert isinstance(eps, float)
    if gain is None and bias is not None:
        out = c.emit("layer_norm", x, eps=eps)
        return c.emit("add", out, bias)
    return c.emit("layer_norm", x, *(v for v in (gain, bias) if v is not None), eps=eps)


@rule("aten.rms_norm.default")
def _rms_norm(c: Context) -> Value:
    _check_last_axis(c)
    eps, gain = c.arguments["eps"], c.optional("weight")
    if not isinstance(eps, float):
        raise c.fail("eps must be given")
    return c.emit("rms_norm", c.value("input"), *([gain] if gain is not None else []), eps=eps)


def _check_last_axis(c: Context) -> None:
    sizes = c.arg("normalized_shape")
    if not isinstance(sizes, list) or len(sizes) != 1:
        raise c.fail("only the last axis can be normalized")
