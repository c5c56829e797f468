"""Move transposes and reshapes towards their readers, and cancel those that meet.

    transpose(transpose(%x))          ==>  transpose(%x)                 perms composed, nothing when they cancel
    reshape(reshape(%x))              ==>  reshape(%x)
    op(transpose(%x))                 ==>  transpose(op(%x))             op elementwise, or its axis moves with it
    op(transpose(%a), transpose(%b))  ==>  transpose(op(%a, %b))         equal perms; scalars, and expands of what the
                                                                         transpose would not reorder, may take part
    linear(reshape(%x), ..)           ==>  reshape(linear(%x, ..))       only axes of length one come or go
    transpose(%x) moving only 1-axes  ==>  reshape(%x)
    reshape(%x) on a narrower %x into a broadcasting reader's rank, expand into a broadcasting reader   ==>  dropped

Why:    transformers writes heads-first [B, H, S, E]; the IR's attention is token-major, so q, k and v become
        linear -> reshape -> (norm) -> rope -> attention with no data movement between.
Needs:  nothing but the types.
Keeps:  bits; algebra where a product gets its rows in another shape.
Stops:  every edit removes a transpose or reshape, or moves a transpose one node closer to the outputs.
Source: common practice (layout propagation).
"""

from __future__ import annotations

from fretsaw.ir import Attr, Graph, Node, Value, catalogue, get_op
from fretsaw.ir.ops.elementwise import broadcast
from fretsaw.passes.api import Decline, Edit, rule, rules
from fretsaw.passes.kit.match import made_by, squeezed

LAST_AXIS = ("rms_norm", "layer_norm")
MOVING_AXIS = ("slice", "softmax", "concat")
# Of one tensor or two: what picks between two (where) has its operands from masks, which keep their own order.
ELEMENTWISE = tuple(name for name, op in catalogue().items() if op.elementwise and len(op.slots) < 3)


def perm_of(node: Node) -> tuple[int, ...]:
    return node.ints_attr("perm")


@rule(root="transpose", phase="canonical", keeps="bits")
def compose_transposes(node: Node, g: Graph) -> Edit | Decline | None:
    """One transpose for two in a row; none when they cancel."""
    inner = made_by(g, node["x"], "transpose")
    if inner is None:
        return None
    perm = tuple(perm_of(inner)[p] for p in perm_of(node))
    edit = Edit()
    if perm == tuple(range(len(perm))):
        edit.redirect(node.out, inner["x"])
    else:
        edit.rewrite(node, "transpose", inner["x"], perm=perm)
    return edit


@rule(root="transpose", phase="canonical", keeps="bits")
def flatten_transpose(node: Node, g: Graph) -> Edit | Decline | None:
    """A transpose that moves only axes of length one is a reshape."""
    shape = node["x"].tensor.shape
    moved = [p for p in perm_of(node) if shape[p] != 1]
    if moved != sorted(moved):
        return None
    edit = Edit()
    edit.rewrite(node, "reshape", node["x"], shape=node.out.tensor.shape)
    return edit


@rule(root="reshape", phase="canonical", keeps="bits")
def compose_reshapes(node: Node, g: Graph) -> Edit | Decline | None:
    """One reshape for two in a row."""
    inner = made_by(g, node["x"], "reshape")
    if inner is None:
        return None
    edit = Edit()
    if inner["x"].type == node.out.type:
        edit.redirect(node.out, inner["x"])
    else:
        edit.rewrite(node, "reshape", inner["x"], shape=node.out.tensor.shape)
    return edit


@rule(root=(*ELEMENTWISE, *LAST_AXIS, *MOVING_AXIS), phase="canonical", keeps="bits")
def sink_transpose(node: Node, g: Graph) -> Edit | Decline | None:
    """Apply ``node`` before the transpose that makes its operands."""
    first = made_by(g, node.operands[0], "transpose") or (
        made_by(g, node.operands[1], "transpose") if len(node.operands) == 2 else None
    )
    if first is None:
        return None
    perm = perm_of(first)
    edit = Edit()
    attrs: dict[str, Attr] = dict(node.attrs)
    if node.op in LAST_AXIS:
        if perm[-1] != len(perm) - 1:
            return Decline("the transpose moves the axis that is normalized", at=first)
        sources = [first["x"], *node.operands[1:]]
    else:
        if node.op in MOVING_AXIS:
            attrs["axis"] = perm[node.int_attr("axis")]
        sources = []
        for value in node.operands:
            source = _before(edit, node, value, perm, g)
            if source is None:
                return Decline("the operands are not transposed alike", at=first)
            sources.append(source)
    inner = edit.insert_node(node.op, sources, attrs, before=node, name=f"{node.out.name}.t")
    edit.rewrite(node, "transpose", inner.out, perm=perm)
    return edit


def _before(edit: Edit, node: Node, value: Value, perm: tuple[int, ...], g: Graph) -> Value | None:
    """What ``value`` is before the transpose ``perm``, when that costs nothing."""
    producer = g.producer(value)
    if producer is not None and producer.op == "transpose" and perm_of(producer) == perm:
        return producer["x"]
    if value.tensor.rank == 0 and get_op(node.op).elementwise:
        return value
    if producer is None or producer.op != "expand" or producer["x"].tensor.rank != len(perm):
        return None
    back = tuple(perm.index(i) for i in range(len(perm)))
    narrow, wide = producer["x"].tensor.shape, value.tensor.shape
    moved = [p for p in back if narrow[p] != 1]
    if moved != sorted(moved):
        return None
    flat = edit.insert(
        "reshape", producer["x"], before=node, name=f"{value.name}.r", shape=tuple(narrow[p] for p in back)
    )
    return edit.insert("expand", flat, before=node, name=f"{value.name}.t", shape=tuple(wide[p] for p in back))


@rule(root=("linear", "slice", "concat", *LAST_AXIS), phase="canonical", keeps="algebra")
def sink_unit_axes(node: Node, g: Graph) -> Edit | Decline | None:
    """Apply ``node`` before the reshape that adds or drops axes of length one ahead of the last axis."""
    count = len(node.operands) if node.op == "concat" else 1
    reshapes = [r for v in node.operands[:count] if (r := made_by(g, v, "reshape")) is not None]
    if len(reshapes) < count or not all(map(_moves_unit_axes, reshapes)):
        return None
    attrs, rank = dict(node.attrs), node.operands[0].tensor.rank
    if "axis" in attrs:
        if attrs["axis"] != rank - 1:
            return None
        attrs["axis"] = reshapes[0]["x"].tensor.rank - 1
    if len({r["x"].tensor.shape[:-1] for r in reshapes}) > 1:
        return Decline("the operands are not reshaped alike", at=reshapes[0])
    edit = Edit()
    operands = [*(r["x"] for r in reshapes), *node.operands[count:]]
    source = edit.insert_node(node.op, operands, attrs, before=node, name=f"{node.out.name}.r")
    edit.rewrite(node, "reshape", source.out, shape=node.out.tensor.shape)
    return edit


def _moves_unit_axes(reshape: Node) -> bool:
    inner, outer = reshape["x"].tensor, reshape.out.tensor
    return squeezed(inner) == squeezed(outer) and inner.shape[-1:] == outer.shape[-1:]


@rule(root=("add", "sub", "mul", "div", "maximum", "minimum", "where", "matmul"), phase="canonical", keeps="bits")
def drop_expand(node: Node, g: Graph) -> Edit | Decline | None:
    """A reader that broadcasts by itself reads the narrow value."""
    shapes = [v.tensor.shape for v in node.operands]
    declined: Decline | None = None
    for i, value in enumerate(node.operands):
        expand = made_by(g, value, "expand")
        if expand is None:
            continue
        narrow = [*shapes[:i], expand["x"].tensor.shape, *shapes[i + 1 :]]
        if node.op == "matmul" and len(narrow[i]) < 2:
            declined = Decline("matmul needs two axes", at=expand)
        elif node.op == "matmul" and broadcast([s[:-2] for s in narrow]) != node.out.tensor.shape[:-2]:
            declined = Decline("it gives the result its shape", at=expand)
        elif node.op == "matmul" and narrow[i][-2:] != shapes[i][-2:]:
            declined = Decline("it widens an axis of the product", at=expand)
        elif node.op != "matmul" and broadcast(narrow) != node.out.tensor.shape:
            declined = Decline("it gives the result its shape", at=expand)
        else:
            operands = [*node.operands[:i], expand["x"], *node.operands[i + 1 :]]
            edit = Edit()
            edit.rewrite_node(node, node.op, [*operands], dict(node.attrs))
            return edit
    return declined


cancel_transposes = rules(
    "cancel_transposes",
    (compose_transposes, flatten_transpose, compose_reshapes, sink_transpose, sink_unit_axes, drop_expand),
    doc=__doc__, phase="canonical",
)  # fmt: skip
