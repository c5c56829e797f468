"""The error of a node that the backend cannot lower: its line in the program, the culprit underlined."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fretsaw.ir import Graph, Node
from fretsaw.ir.errors import LoweringError
from fretsaw.ir.excerpt import excerpt, place

if TYPE_CHECKING:
    from fretsaw.backends.program.plan.context import Context

CAPTURED = "this architecture can be captured and run by the reference interpreter, not compiled yet"


def refusal(
    graph: Graph, node: Node, what: str, *, slot: str | None = None, attr: str | None = None, hint: str = CAPTURED
) -> LoweringError:
    """The error to raise for ``node``.

    Args:
        slot: The operand that stands in the way.
        attr: The attribute that stands in the way.
    """
    context = excerpt(graph, node, slot=slot, attr=attr)
    return LoweringError(what, where=place(node), when="lowering for tvm", context=context, hint=hint)


def refuse_stray(ctx: Context, node: Node) -> None:
    """Refuse a node that is lowered as a part of a layer's attention and belongs to none.

    Raises:
        LoweringError: always.
    """
    raise refusal(ctx.graph, node, f"{node.op} stands where no kernel of the tvm backend covers it")
