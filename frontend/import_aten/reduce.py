"""Import rules for reductions, top-k and prefix sums."""

from __future__ import annotations

from fretsaw.frontend.import_aten.table import Context, rule
from fretsaw.ir import Value


def _along(c: Context, op: str) -> Value:
    """Reduce along one or more axes, the last first."""
    x = c.cast(c.value("self"), c.dtype)
    dims = c.arg("dim")
    axes = dims if isinstance(dims, list) and dims else range(x.tensor.rank)
    keep = bool(c.arguments.get("keepdim"))
    for axis in sorted((int(a) % x.tensor.rank for a in axes), reverse=True):
        x = c.emit(op, x, axis=axis, keepdims=keep)
    return x


@rule("aten.sum.dim_IntList")
def _sum(c: Context) -> Value:
    return _along(c, "sum")


@rule("aten.mean.dim")
def _mean(c: Context) -> Value:
    return _along(c, "mean")


@rule("aten.amax.default")
def _amax(c: Context) -> Value:
    return _along(c, "max")


@rule("aten.topk.default")
def _topk(c: Context) -> tuple[Value, ...]:
    x = c.value("self")
    if c.axis() != x.tensor.rank - 1 or not c.arguments["largest"]:
        raise c.fail("only the largest along the last axis are supported")
    return c.emit_all("topk", [x], k=c.integer("k"))


@rule("aten.cumsum.default")
def _cumsum(c: Context) -> Value:
    return c.emit("cumsum", c.cast(c.value("self"), c.dtype), axis=c.axis())


@rule("aten.softmax.int", "aten._softmax.default")
def _softmax(c: Context) -> Value:
    return c.emit("softmax", c.cast(c.value("self"), c.dtype), axis=c.axis())
