"""What a rule returns: an :class:`Edit` to be applied, or a :class:`Decline` that says why not, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fretsaw.ir import Attr, Const, Graph, Loc, Node, Value, make_node
from fretsaw.ir.errors import PassError


@dataclass(frozen=True)
class Decline:
    """A site that a rule looked at and left alone. A product, not a failure: `explain` and the ledger show it.

    Args:
        reason: What stood in the way, for a reader who wants the rewrite to happen.
        at: The node that stood in the way, not the root.
        already: The site has the wanted form, so it counts as reached.
    """

    reason: str
    at: Node
    already: bool = False


class Edit:
    """Changes around one root, collected by a rule and applied by the driver. The graph itself is never touched.

    Every change but :meth:`replace` keeps the meaning of every value, so edits of one sweep compose.
    """

    def __init__(self) -> None:
        self.rewritten: list[tuple[Node, Node]] = []
        self.inserted: list[tuple[Node, Node]] = []  # (before which node, new node)
        self.redirects: list[tuple[Value, Value]] = []
        self.consts: dict[Value, Const] = {}
        self.exclusive = False

    def const(self, name: str, data: np.ndarray | Const) -> Value:
        """A new constant; the driver makes the name unique."""
        const = data if isinstance(data, Const) else Const.of(data)
        value = Value(name, const.type)
        self.consts[value] = const
        return value

    def insert(
        self, op: str, *operands: Value, before: Node, name: str = "", loc: Loc | None = None, **attrs: Attr
    ) -> Value:
        """A new node just before ``before``; returns its first result."""
        return self.insert_node(op, operands, attrs, before=before, name=name, loc=loc).out

    def insert_node(
        self, op: str, operands: Sequence[Value], attrs: Mapping[str, Attr], *, before: Node, name: str = "",
        loc: Loc | None = None,
    ) -> Node:  # fmt: skip
        """A new node just before ``before``, for ops with several results."""
        base = name or f"{before.out.name}.{op}"
        base = base if base not in self._taken() else f"{base}.{len(self.inserted)}"
        node = make_node(op, operands, attrs, [base], loc or before.loc)
        self.inserted.append((before, node))
        return node

    def _taken(self) -> set[str]:
        return {v.name for _, n in self.inserted for v in n.results} | {v.name for v in self.consts}

    def rewrite(self, node: Node, op: str, *operands: Value, **attrs: Attr) -> None:
        """Compute the results of ``node`` by another op; their names, types and meaning stay.

        Raises:
            PassError: the op's results have other types (a mistake in the rule).
        """
        self.rewrite_node(node, op, operands, attrs)

    def rewrite_node(
        self, node: Node, op: str, operands: Sequence[Value], attrs: Mapping[str, Attr], loc: Loc | None = None
    ) -> None:
        """:meth:`rewrite` with attributes in a mapping, and a location for the new node where it is not the old one."""
        new = make_node(op, operands, attrs, [v.name for v in node.results], loc or node.loc)
        if [v.type for v in new.results] != [v.type for v in node.results]:
            raise PassError(
                f"rewriting {node.op} as {op} changes its type from {node.out.type} to {new.out.type}",
                where=f"%{node.out.name}   {node.loc.module}",
            )
        self.rewritten.append((node, new))

    def redirect(self, old: Value, new: Value) -> None:
        """Every reader of ``old`` reads ``new``, which is equal to it and defined before every reader.

        Raises:
            PassError: the types differ (a mistake in the rule).
        """
        if old.type != new.type:
            raise PassError(f"redirecting %{old.name} to %{new.name} changes its type from {old.type} to {new.type}")
        self.redirects.append((old, new))

    def replace(self, node: Node, **slots: Value) -> None:
        """Exchange operands by slot name. The meaning of the results may change, so the driver keeps other edits away
        from the nodes that this one touches."""
        current = next((new for old, new in self.rewritten if old is node), node)
        operands = list(current.operands)
        for slot, value in slots.items():
            operands[current.operands.index(current[slot])] = value
        new = make_node(node.op, operands, dict(node.attrs), [v.name for v in node.results], node.loc)
        self.rewritten = [(old, n) for old, n in self.rewritten if old is not node] + [(node, new)]
        self.exclusive = True

    def touched(self, graph: Graph) -> set[int]:
        """Identities of the nodes that this edit changes or makes superfluous."""
        out = {id(node) for node, _ in self.rewritten}
        for old, _ in self.redirects:
            producer = graph.producer(old)
            if producer is not None:
                out.add(id(producer))
        return out

    def reads(self, graph: Graph) -> set[int]:
        """Identities of the nodes whose results the new nodes read."""
        values = [v for _, node in [*self.rewritten, *self.inserted] for v in node.operands]
        producers = [graph.producer(v) for v in [*values, *(new for _, new in self.redirects)]]
        return {id(p) for p in producers if p is not None}

    def stamped(self, rule: str) -> Edit:
        """The same edit with ``rule`` recorded in the location of every new node."""
        out = Edit()
        out.rewritten = [(old, replace(new, loc=new.loc.touched(rule))) for old, new in self.rewritten]
        out.inserted = [(before, replace(new, loc=new.loc.touched(rule))) for before, new in self.inserted]
        out.redirects, out.consts, out.exclusive = self.redirects, self.consts, self.exclusive
        return out

    def idle(self) -> bool:
        """Whether applying the edit would change nothing: no rewrite or redirect, or only of things to themselves."""
        made = {*self.consts, *(v for _, node in self.inserted for v in node.results)}  # names not yet made unique
        same = all(old == new and new not in made for old, new in self.redirects)
        return same and all(old == new for old, new in self.rewritten)
