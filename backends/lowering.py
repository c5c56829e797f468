"""What a backend says about each op: how it lowers it, or why not.

A backend's table is total over the ops that are legal in the phase it lowers from, so that an op without an answer is
a mistake that a test finds, and never something that a compile does silently without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fretsaw.ir import Graph, Node
from fretsaw.ir.errors import LoweringError
from fretsaw.ir.excerpt import excerpt, place
from fretsaw.ir.phases import legal_ops

HINT = "the reference interpreter runs every op; `fretsaw backends --ops` shows which backend lowers what"


@dataclass(frozen=True)
class Lowering:
    """The backend lowers the op.

    Args:
        to: What it becomes, in a few words.
    """

    to: str


@dataclass(frozen=True)
class Refusal:
    """The backend does not lower the op.

    Args:
        reason: Why, in words that help whoever meets the op in a model.
    """

    reason: str


Answer = Lowering | Refusal
Table = Mapping[str, Answer]


def gaps(phase: str, table: Table) -> tuple[list[str], list[str]]:
    """Ops that are legal in ``phase`` and have no answer, and answers to ops that are not legal there."""
    legal = legal_ops(phase)
    return [op for op in legal if op not in table], sorted(set(table) - set(legal))


def check_lowerings(graph: Graph, name: str, phase: str, table: Table) -> None:
    """Refuse a graph that the backend ``name`` does not lower, before anything is built.

    Args:
        phase: The phase that the backend lowers from.

    Raises:
        LoweringError: the graph is in another phase, or has ops that are refused: lists each with the reason, its first
            place and the number of places.
    """
    if graph.phase != phase:
        raise LoweringError(
            f"the {name} backend lowers {phase} programs, this one is {graph.phase}", where=graph.name,
            hint="run the pass pipeline first",
        )  # fmt: skip
    refused: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if not isinstance(table.get(node.op), Lowering):
            refused.setdefault(node.op, []).append(node)
    if refused:
        first = next(iter(refused.values()))[0]
        what = f"the {name} backend has no lowering for {', '.join(sorted(refused))}"
        places = [_refused(op, at, table) for op, at in sorted(refused.items())]
        context = "\n".join([excerpt(graph, first), *places])
        raise LoweringError(what, where=place(first), when=f"lowering for {name}", context=context, hint=HINT)


def _refused(op: str, at: Sequence[Node], table: Table) -> str:
    answer = table.get(op)
    reason = answer.reason if isinstance(answer, Refusal) else "the backend's table has no answer for it"
    places = f"{len(at)} places" if len(at) > 1 else "1 place"
    return f"  {op}: {places}, first {place(at[0])}: {reason}"
