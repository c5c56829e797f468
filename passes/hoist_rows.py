"""Pick the rows whose logits are wanted before the work, not after it.

    %y = op(%x, const)
    %r = take(%y, %rows)                  ==>     %p = take(%x, %rows)
                                                  %r = op(%p, const)

Why:    the projection to the vocabulary is the largest product of a small model; prefill wants one row of it.
Needs:  op maps each row alone and has one operand with rows; nobody else reads %y.
Keeps:  algebra (bits where a product does not depend on how many rows it has).
Stops:  each edit moves a take one node closer to the inputs.
Source: common practice ("last logits only").
"""

from __future__ import annotations

from typing import cast

from fretsaw.ir import Attr, Graph, Node, Shape, get_op
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.match import made_by

ROWWISE = ("linear", "rms_norm", "layer_norm")


@rule(root="take", phase="packed", keeps="algebra")
def hoist_rows(root: Node, g: Graph) -> Edit | Decline | None:
    """Move ``take`` above the producer of what it picks from."""
    x, index = root.operands
    node = made_by(g, x, *ROWWISE) or g.producer(x)
    if node is None or x in g.consts or node.op in ("embedding", "take"):
        return None
    if g.sole_use(x) is None:
        return Decline("others read all rows", at=node)
    full = x.tensor.shape[0]
    with_rows = [v for v in node.operands if v not in g.consts and v.tensor.rank and v.tensor.shape[0] == full]
    if len(with_rows) != 1:
        return Decline(f"{len(with_rows)} operands have rows", at=node)
    (source,) = with_rows
    attrs: dict[str, Attr] = dict(node.attrs)
    if node.op == "reshape":
        shape = cast(Shape, node.attr("shape"))
        attrs["shape"] = (*index.tensor.shape, *shape[1:])
    elif node.op not in ROWWISE and not (get_op(node.op).elementwise and source.tensor.rank == x.tensor.rank):
        return Decline(f"{node.op} is not known to map each row alone", at=node)
    edit = Edit()
    picked = edit.insert("take", source, index, before=root, name=f"{source.name}.rows", loc=node.loc)
    operands = [picked if v == source else v for v in node.operands]
    edit.rewrite_node(root, node.op, operands, attrs, node.loc)
    return edit
