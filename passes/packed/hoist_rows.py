"""Pick the rows whose logits are wanted before the work, not after it.

    %y = op(%x, const)
    %r = take(%y, %rows)                  ==>     %p = take(%x, %rows)
                                                  %r = op(%p, const)

Why:    the projection to the vocabulary is the largest product of a small model; prefill wants one row of it. What
        follows the last attention is as good as unread too: the take climbs through the last layer's MLP.
Needs:  op maps each row alone; nobody reads %y but takes of the same rows.
Keeps:  algebra (bits where a product does not depend on how many rows it has).
Stops:  each edit moves a take one node closer to the inputs.
Source: common practice ("last logits only").
"""

from __future__ import annotations

from collections.abc import Sequence

from fretsaw.ir import Attr, Graph, Node, Value, get_op
from fretsaw.passes.api import Decline, Edit, rule


@rule(root="take", phase="packed", keeps="algebra")
def hoist_rows(root: Node, g: Graph) -> Edit | Decline | None:
    """Move ``take`` above the producer of what it picks from."""
    x, index = root.operands
    node = g.producer(x)
    if node is None or x in g.consts or node.op in ("embedding", "take"):
        return None
    takes = [use.node for use in g.uses(x)]
    if x in g.output_set or any(t.op != "take" or t.operands[1] != index for t in takes):
        return Decline("others read all rows", at=node)
    if takes[0] is not root:
        return Decline("an earlier take of the same rows goes first", at=takes[0])
    if get_op(node.op).handles:
        return Decline(f"{node.op} mixes rows", at=node)
    full = x.tensor.shape[0]
    with_rows = [v for v in node.operands if v not in g.consts and v.tensor.rank and v.tensor.shape[0] == full]
    if not with_rows or (len(with_rows) > 1 and not get_op(node.op).elementwise):
        return Decline(f"{len(with_rows)} operands have rows", at=node)
    if not _maps_rows(node, with_rows, x):
        return Decline(f"{node.op} is not known to map each row alone", at=node)
    attrs: dict[str, Attr] = dict(node.attrs)
    if node.op == "reshape":
        shape = node.shape_attr("shape")
        attrs["shape"] = (*index.tensor.shape, *shape[1:])
    edit = Edit()
    picked = {
        v: edit.insert("take", v, index, before=root, name=f"{v.name}.rows", loc=node.loc)
        for v in dict.fromkeys(with_rows)
    }
    edit.rewrite_node(root, node.op, [picked.get(v, v) for v in node.operands], attrs, node.loc)
    for other in takes[1:]:
        edit.redirect(other.out, root.out)
    return edit


def _maps_rows(node: Node, with_rows: Sequence[Value], x: Value) -> bool:
    """Row i of ``x`` depends on row i of the operands alone."""
    op = get_op(node.op)
    if op.rows == "axis":
        return node.int_attr("axis") > 0
    if node.op == "reshape":
        return True  # both first dims are the rows
    if op.rows == "each":
        return len(node.results) == 1
    return op.elementwise and all(v.tensor.rank == x.tensor.rank for v in with_rows)
