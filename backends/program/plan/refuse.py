"""The error of a node that the backend cannot lower: its line in the program, the culprit underlined."""

from __future__ import annotations

from fretsaw.ir import Graph, Node
from fretsaw.ir.errors import LoweringError
from fretsaw.ir.excerpt import excerpt, place

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
