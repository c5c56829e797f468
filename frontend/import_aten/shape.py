"""Import rules for ATen ops that move elements. Result shapes are read off the trace, so -1 never arrives."""

from __future__ import annotations

from fretsaw.frontend.import_aten.table import Context, rule
from fretsaw.ir import Dim, Value


@rule(
    "aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.unsqueeze.default",
    "aten.squeeze.dim", "aten.squeeze.default", "aten.squeeze.dims", "aten.flatten.using_ints",
    "aten.unflatten.int",
)  # fmt: skip
def _reshape(c: Context) -> Value:
    return c.reshape(c.value("self"), c.shape)


@rule("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default")
def _expand(c: Context) -> Value:
    x = c.value("self")
    return x if x.tensor.shape == c.shape else c.emit("expand", x, shape=c.shape)


@rule("aten.transpose.int", "aten.t.default", "aten.permute.default")
def _transpose(c: Context) -> Value:
    x = c.value("self")
    rank = x.tensor.rank
    perm = list(range(rank))
    if "permute" in c.name:
        dims = c.arg("dims")
        assert isinstance(dims, list)
        perm = [int(d) % rank for d in dims]
    else:
        a, b = (0, 1) if c.name == "aten.t.default" else (c.axis("dim0"), c.axis("dim1"))
        perm[a], perm[b] = perm[b], perm[a]
    return x if perm == list(range(rank)) else c.emit("transpose", x, perm=tuple(perm))


@rule("aten.slice.Tensor")
def _slice(c: Context) -> Value:
    x, axis, step = c.value("self"), c.axis(), c.integer("step")
    start = c.arg("start") or 0
    assert isinstance(start, (int, Dim))
    if isinstance(start, int) and start < 0:
        start = x.tensor.shape[axis] + start
    return c.slice(x, axis, start, c.shape[axis], step)


@rule("aten.select.int")
def _select(c: Context) -> Value:
    x, axis, index = c.value("self"), c.axis(), c.arg("index")
    assert isinstance(index, (int, Dim))
    if isinstance(index, int) and index < 0:
        index = x.tensor.shape[axis] + index
    return c.reshape(c.slice(x, axis, index, 1), c.shape)


@rule("aten.split_with_sizes.default", "aten.split.Tensor", "aten.chunk.default", "aten.split.sizes")
def _split(c: Context) -> tuple[Value, ...]:
    x, axis = c.value("self"), c.axis()
    parts, at = [], c.state.symbols.dim(0)
    for val in c.node.meta["val"]:
        length = c.state.symbols.dim(val.shape[axis])
        parts.append(c.slice(x, axis, at, length))
        at = at + length
    return tuple(parts)


@rule("aten.unbind.int")
def _unbind(c: Context) -> tuple[Value, ...]:
    x, axis = c.value("self"), c.axis()
    vals = c.node.meta["val"]
    return tuple(c.reshape(c.slice(x, axis, i, 1), c.state.symbols.shape(v.shape)) for i, v in enumerate(vals))


@rule("aten.cat.default")
def _cat(c: Context) -> Value:
    raw = c.arguments["tensors"]
    assert isinstance(raw, (list, tuple))
    values = [c.cast(c.tensor(t), c.dtype) for t in raw]
    return c.emit("concat", *values, axis=c.axis(rank=len(c.shape)))


@rule("aten.stack.default")
def _stack(c: Context) -> Value:
    raw = c.arguments["tensors"]
    assert isinstance(raw, (list, tuple))
    axis = c.axis(rank=len(c.shape))
    row = (*c.shape[:axis], 1, *c.shape[axis + 1 :])
    return c.emit("concat", *(c.reshape(c.tensor(t), row) for t in raw), axis=axis)


@rule("aten.gather.default")
def _gather(c: Context) -> Value:
    return c.emit("gather", c.value("self"), c.value("index"), axis=c.axis())


@rule("aten.scatter.src")
def _scatter(c: Context) -> Value:
    return c.emit("scatter", c.value("self"), c.value("index"), c.value("src"), axis=c.axis())


@rule("aten.scatter.value")
def _scatter_value(c: Context) -> Value:
    x, index, number = c.value("self"), c.value("index"), c.arguments["value"]
    assert isinstance(number, (bool, int, float))
    src = c.full(number, x.tensor.dtype, index.tensor.shape)
    return c.emit("scatter", x, index, src, axis=c.axis())


@rule("aten.index_select.default")
def _index_select(c: Context) -> Value:
    if c.axis() != 0:
        raise c.fail("only axis 0 is supported")
    return c.emit("take", c.value("self"), c.value("index"))


@rule("aten.arange.default", "aten.arange.start", "aten.arange.start_step")
def _arange(c: Context) -> Value:
    out = c.emit("iota", dtype=c.dtype, size=c.shape[0])
    start, step = c.arg("start") or 0, c.arg("step") or 1
    if not isinstance(start, (int, float)) or not isinstance(step, (int, float)):
        raise c.fail("start and step must be fixed numbers")
    out = out if step == 1 else c.emit("mul", out, c.scalar(step, c.dtype))
    return out if start == 0 else c.emit("add", out, c.scalar(start, c.dtype))


@rule(
    "aten.zeros.default", "aten.ones.default", "aten.full.default", "aten.zeros_like.default",
    "aten.ones_like.default", "aten.full_like.default", "aten.new_zeros.default", "aten.new_ones.default",
    "aten.scalar_tensor.default", "aten.new_full.default",
)  # fmt: skip
def _full(c: Context) -> Value:
    raw = c.arguments.get("fill_value", c.arguments.get("s"))
    number = raw if raw is not None else 1 if "ones" in c.name else 0
    assert isinstance(number, (bool, int, float))
    return c.full(number, c.dtype, c.shape)
