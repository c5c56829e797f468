"""Import rules for what mask-building code uses: indexing by tensors, differences, logic, triangles."""

from __future__ import annotations

from fretsaw.frontend.import_aten.table import Context, rule
from fretsaw.ir import Value


@rule("aten.__and__.Tensor", "aten.bitwise_and.Tensor", "aten.logical_and.default")
def _and(c: Context) -> Value:
    return _logic(c, "mul")


@rule("aten.__or__.Tensor", "aten.bitwise_or.Tensor", "aten.logical_or.default")
def _or(c: Context) -> Value:
    return _logic(c, "add")


def _logic(c: Context, op: str) -> Value:
    a, b = c.value("self"), c.value("other")
    if a.tensor.dtype != "bool" or b.tensor.dtype != "bool":
        raise c.fail("only booleans are supported")
    return c.emit(op, a, b)


@rule("aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def _where(c: Context) -> Value:
    picked = []
    for name in ("self", "other"):
        raw = c.arguments.get(name)
        number = isinstance(raw, (bool, int, float))
        picked.append(c.scalar(c.number(name), c.dtype) if number else c.cast(c.value(name), c.dtype))
    return c.emit("where", c.value("condition"), *picked)


@rule("aten.index.Tensor")
def _index(c: Context) -> Value:
    """``x[i]``, and ``x[i, j]`` of a matrix: rows first, then one element of each row."""
    x, raw = c.value("self"), c.arguments["indices"]
    assert isinstance(raw, (list, tuple))
    indices = [c.tensor(i) for i in raw]  # an absent index before a given one fails here
    if any(i.tensor.dtype == "bool" for i in indices):
        raise c.fail("indexing by a mask is not supported: the size of its result depends on the data")
    if len(indices) == 1:
        return c.emit("take", x, indices[0])
    if len(indices) != 2 or x.tensor.rank != 2:
        raise c.fail(f"{len(indices)} indices into a tensor of rank {x.tensor.rank} are not supported")
    rows = c.emit("take", x, indices[0])  # [.., N]
    rank = len(c.shape)
    rows = c.reshape(rows, (*[1] * (rank + 1 - rows.tensor.rank), *rows.tensor.shape))
    wide = (*c.shape, x.tensor.shape[1])
    rows = rows if rows.tensor.shape == wide else c.emit("expand", rows, shape=wide)
    columns = indices[1]
    columns = columns if columns.tensor.shape == c.shape else c.emit("expand", columns, shape=c.shape)
    picked = c.emit("gather", rows, c.reshape(columns, (*c.shape, 1)), axis=rank)
    return c.reshape(picked, c.shape)


@rule("aten.diff.default")
def _diff(c: Context) -> Value:
    """Differences of neighbours along an axis, of the values with ``prepend`` before them."""
    x, axis = c.value("self"), c.axis()
    if c.arguments["n"] != 1 or c.arguments.get("append") is not None:
        raise c.fail("only first differences without append are supported")
    before = c.optional("prepend")
    x = x if before is None else c.emit("concat", before, x, axis=axis)
    length = c.shape[axis]
    return c.emit("sub", c.slice(x, axis, 1, length), c.slice(x, axis, 0, length))


@rule("aten.tril.default", "aten.triu.default")
def _triangle(c: Context) -> Value:
    """The lower or upper triangle; the rest is zero."""
    x, diagonal = c.value("self"), c.integer("diagonal")
    rows, columns = c.shape[-2:]
    i = c.reshape(c.emit("iota", size=rows), (rows, 1))
    j = c.emit("iota", size=columns)
    gap = c.emit("sub", j, i)
    kept = c.emit("le" if "tril" in c.name else "ge", gap, c.scalar(diagonal, "i64"))
    zero = c.scalar(False if c.dtype == "bool" else 0, c.dtype)
    return c.emit("where", kept, x, zero)


@rule("aten.max.dim")
def _extreme(c: Context) -> tuple[Value, ...]:
    """The extreme values along an axis; their places are not computed."""
    if any(user.args[1:] == (1,) and user.users for user in c.node.users):
        raise c.fail("the place of the maximum is not supported")
    return (c.emit("max", c.value("self"), axis=c.axis(), keepdims=bool(c.arguments["keepdim"])),)


@rule("aten.repeat_interleave.self_int")
def _repeat(c: Context) -> Value:
    """Every element ``repeats`` times in a row along an axis."""
    x, axis, times = c.value("self"), c.axis(), c.integer("repeats")
    shape = x.tensor.shape
    rows = c.reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    wide = c.emit("expand", rows, shape=(*shape[: axis + 1], times, *shape[axis + 1 :]))
    return c.reshape(wide, c.shape)
