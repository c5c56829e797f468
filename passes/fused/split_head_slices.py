"""Give query, key and value that interleave head by head in one projection a projection each.

    %p = linear(%x, W [H*C, I])
    %r = reshape(%p) [.., H, C]                    %q = reshape(linear(%x, rows of W for q))
    %q = slice(%r) {last, 0:E}            ==>      %k = reshape(linear(%x, rows of W for k))
    %k = slice(%r) {last, E:2E} ..                 ..

Why:    a slice inside every head copies; `merge_qkv` then joins the projections so that each slice is one run.
Needs:  three slices of the last axis read %r; weight and bias constant and read here alone.
Keeps:  algebra (the same products, in another matrix).
Stops:  each edit leaves one reshape read by slices fewer.
Source: GPT-NeoX's query_key_value, arXiv:2204.06745.
"""

from __future__ import annotations

from fretsaw.ir import Const, Graph, Node, OpData, TensorType, Value
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.kit.match import last_axis, made_by


@rule(root="reshape", phase="fused", keeps="algebra")
def split_head_slices(root: Node, g: Graph) -> Edit | Decline | None:
    """One linear per slice of the heads."""
    linear = made_by(g, root["x"], "linear")
    readers = [u.node for u in g.uses(root.out)]
    if linear is None or len(readers) != 3 or any(r.op != "slice" for r in readers):
        return None  # three: query, key and value
    heads, width = root.out.tensor.shape[-2:]
    if not isinstance(heads, int) or not isinstance(width, int) or root.out in g.output_set:
        return None
    if root.out.tensor.shape[:-2] != linear.out.tensor.shape[:-1] or heads == 1:
        return None
    if any(r.attr("axis") != last_axis(root.out) or r.attr("step") != 1 for r in readers):
        return Decline("a reader slices another axis, or with a stride", at=root)
    if g.sole_use(linear.out) is None:
        return Decline("the projection has other readers", at=linear)
    if any(v not in g.consts or len(g.uses(v)) > 1 for v in linear.operands[1:]):
        return Decline("weight or bias is computed or shared", at=linear)
    edit = Edit()
    for i, reader in enumerate(readers):
        start, end = reader.int_attr("start"), reader.int_attr("end")
        params = [_rows(edit, g, v, heads, width, start, end) for v in linear.operands[1:]]
        part = edit.insert(
            "linear", linear["input"], *params, before=root, name=f"{linear.out.name}.{i}", loc=linear.loc
        )
        edit.rewrite(reader, "reshape", part, shape=reader.out.tensor.shape)
    return edit


def _rows(edit: Edit, g: Graph, value: Value, heads: int, width: int, start: int, end: int) -> Value:
    """Rows start:end of every head of a weight [H*C, I] or bias [H*C], lazily."""
    const = g.consts[value]
    dtype, rest = const.type.dtype, const.type.shape[1:]
    split = Const(
        TensorType(dtype, (heads, width, *rest)), OpData("reshape", (const,), (("shape", (heads, width, *rest)),))
    )
    bounds = (("axis", 1), ("end", end), ("start", start))
    part = Const(TensorType(dtype, (heads, end - start, *rest)), OpData("slice", (split,), bounds))
    shape = (heads * (end - start), *rest)
    return edit.const(
        f"{value.name}.{start}", Const(TensorType(dtype, shape), OpData("reshape", (part,), (("shape", shape),)))
    )
