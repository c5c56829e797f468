"""Cover the ops that choose key blocks: one kernel each, on what they read of the cache and on their operands."""

from __future__ import annotations

from fretsaw.backends.tvm.plan.context import Context
from fretsaw.backends.tvm.plan.sparse_attention import check_pages
from fretsaw.backends.tvm.specs_select import BUILDERS, SelectSpec
from fretsaw.backends.tvm.steps import Arg, CacheSlot
from fretsaw.ir import Node, TensorType, Value
from fretsaw.ir.op import get_op

SELECT = frozenset(BUILDERS)


def cover_select(ctx: Context, node: Node) -> None:
    """Plan the launch of a selector.

    Raises:
        LoweringError: pages of the cache are no blocks.
    """
    check_pages(ctx, node)
    op = get_op(node.op)
    keys = "layer" in op.attrs
    slots = ("k_pages", "table", "lens", "cu") if keys else ("lens", "cu")
    inputs: list[Arg] = [*map(CacheSlot, slots)] if "kv" in op.slots else []
    tensors = [v for v in node.operands if isinstance(v.type, TensorType)]
    attrs = {name: spec.default for name, spec in op.attrs.items()} | dict(node.attrs)
    attrs.pop("layer", None)
    spec = SelectSpec(
        node.op, tuple(map(_sizes, tensors)), tuple(map(_sizes, node.results)), tuple(sorted(attrs.items())),
        ctx.kv,
    )  # fmt: skip
    inputs += [_operand(ctx, v) for v in tensors]
    ctx.add(spec, inputs, node.results, [node], scalars=[node.int_attr("layer")] if keys else [])


def _operand(ctx: Context, value: Value) -> Arg:
    """A weight of a selector as it is (frequencies are those of the rotary embedding, packed already)."""
    const = ctx.graph.consts.get(value)
    if const is None:
        return value
    if value.tensor.rank == 1:
        return ctx.pool.vector([(const, None)], value.name)
    return ctx.pool.whole(const, value.name)


def _sizes(value: Value) -> tuple[int, ...]:
    return tuple(n for n in value.tensor.shape if isinstance(n, int))
