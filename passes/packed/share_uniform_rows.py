"""Read one row of a table where every token reads the same one.

    %ids = full() {value = k}
    %y = embedding(%ids, const)        ==>     const %row                            [D], row k
    %z = add(%x, %y)                           %z = add(%x, %row)

Why:    token types that nobody gives are zeros: a lookup and a buffer per token for one vector.
Needs:  a constant table, ids that are one number, readers that are elementwise with another operand per token.
Keeps:  bits: the same numbers are added.
Stops:  each edit leaves one lookup fewer.
Source: common practice.
"""

from __future__ import annotations

from fretsaw.ir import Const, Graph, Node, OpData, TensorType, get_op
from fretsaw.passes.api import Decline, Edit, rule


@rule(root="embedding", phase="packed", keeps="bits")
def share_uniform_rows(root: Node, g: Graph) -> Edit | Decline | None:
    """Replace the lookup ``root`` by a constant row."""
    ids, table = g.producer(root["ids"]), g.consts.get(root["table"])
    if ids is None or ids.op != "full":
        return None
    row = ids.attr("value")
    if table is None or not isinstance(row, int):
        return Decline("the table is computed", at=root)
    rows, width = table.type.shape
    if not isinstance(rows, int) or not 0 <= row < rows:
        return Decline(f"row {row} is not in the table", at=root)
    uses = g.uses(root.out)
    if root.out in g.output_set or not uses:
        return Decline("all rows are a graph output", at=root)
    shape = root.out.tensor.shape
    for use in uses:
        others = [v for v in use.node.operands if v != root.out]
        if not get_op(use.node.op).elementwise or all(v.tensor.shape != shape for v in others):
            return Decline(f"{use.node.op} reads a row for each token", at=use.node)
    one = Const(TensorType(table.type.dtype, (1, width)), OpData("slice", (table,), _slice(row), 0))
    kind = TensorType(table.type.dtype, (width,))
    shared = Const(kind, OpData("reshape", (one,), (("shape", (width,)),), 0))
    edit = Edit()
    constant = edit.const(f"{root.out.name}.row", shared)
    for reader in {id(use.node): use.node for use in uses}.values():
        operands = [constant if v == root.out else v for v in reader.operands]
        edit.rewrite_node(reader, reader.op, operands, dict(reader.attrs))
    return edit


def _slice(row: int) -> tuple[tuple[str, int], ...]:
    return (("axis", 0), ("end", row + 1), ("start", row))
