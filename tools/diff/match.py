"""Which node of one graph is which node of another. Names of values do not count.

Nodes are paired in rounds, from everything equal (module path, op, attributes, types, constants, what is read) to
module path and op alone. What no round pairs was removed or added.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from fretsaw.ir import Const, Graph, Node, OpData, Value, get_op
from fretsaw.ir.op import has_op
from fretsaw.ir.printer import const_text

Key = Callable[[Graph, Node], Hashable]


@dataclass(frozen=True)
class Matching:
    """Pairs of nodes, and what is left on either side, in program order."""

    before: Graph
    after: Graph
    pairs: tuple[tuple[Node, Node], ...]
    removed: tuple[Node, ...]
    added: tuple[Node, ...]

    @cached_property
    def partner(self) -> dict[Value, Value]:
        """Values of the graph before, by their counterparts after: inputs by name, results by their nodes."""
        named = {v.name: v for v in self.after.inputs}
        found = {v: named[v.name] for v in self.before.inputs if v.name in named}
        for old, new in self.pairs:
            found.update(zip(old.results, new.results, strict=False))
        return found


def match(before: Graph, after: Graph) -> Matching:
    """Pair the nodes of two graphs."""
    left, right = list(before.nodes), list(after.nodes)
    pairs: list[tuple[Node, Node]] = []
    rounds: Sequence[tuple[Key, bool]] = ((_whole, True), (_typed, True), (_bare, False), (_placed, False))
    for key, exact in rounds:
        found = list(_round(before, left, after, right, key, exact=exact))
        pairs += found
        taken = {id(n) for pair in found for n in pair}
        left = [n for n in left if id(n) not in taken]
        right = [n for n in right if id(n) not in taken]
    pairs.sort(key=lambda pair: before.position(pair[0]))
    return Matching(before, after, tuple(pairs), tuple(left), tuple(right))


def slots(node: Node) -> tuple[str, ...]:
    """Names of the operands, also of an op that the catalogue has not."""
    count = len(node.operands)
    names = get_op(node.op).slot_names(count) if has_op(node.op) else ()
    return (*names, *(f"operand {i}" for i in range(len(names), count)))


def _whole(graph: Graph, node: Node) -> Hashable:
    reads = []
    for value in node.operands:
        producer = graph.producer(value)
        if value in graph.consts:
            reads.append((str(value.type), const_text(graph.consts[value])))
        elif producer is None:
            reads.append((value.name, ""))
        else:
            reads.append((producer.loc.module, producer.op))
    return _typed(graph, node), tuple(reads)


def _typed(graph: Graph, node: Node) -> Hashable:
    consts = tuple(str(v.type) for v in node.operands if v in graph.consts)
    return node.loc.module, node.op, node.attrs, tuple(str(v.type) for v in node.results), consts


def _bare(graph: Graph, node: Node) -> Hashable:
    return node.loc.module, node.op, tuple(str(v.type) for v in node.results)


def _placed(graph: Graph, node: Node) -> Hashable:
    return node.loc.module, node.op


def _round(
    before: Graph, left: Sequence[Node], after: Graph, right: Sequence[Node], key: Key, *, exact: bool
) -> Iterator[tuple[Node, Node]]:
    """Pairs of equal keys in program order. A loose round wants as many on either side, so that a node that went
    does not shift all that follow it."""
    by_key: dict[Hashable, tuple[list[Node], list[Node]]] = defaultdict(lambda: ([], []))
    for node in left:
        by_key[key(before, node)][0].append(node)
    for node in right:
        by_key[key(after, node)][1].append(node)
    for old, new in by_key.values():
        if exact or len(old) == len(new):
            yield from (
                (a, b) for a, b in zip(old, new, strict=False) if not (_joins(before, a, b, after) and not exact)
            )


def _joins(before: Graph, old: Node, new: Node, after: Graph) -> bool:
    """One of the two holds the constants of several nodes of the other graph: they are not the same node."""
    a = [before.consts[v] for v in old.operands if v in before.consts]
    b = [after.consts[v] for v in new.operands if v in after.consts]
    pairs = list(zip(a, b, strict=False))
    return any(_parts(x) > {const_text(y)} or _parts(y) > {const_text(x)} for x, y in pairs)


def _parts(const: Const) -> set[str]:
    """Texts of what a constant is put together from."""
    if isinstance(const.data, OpData) and const.data.op == "concat":
        return {text for part in const.data.operands for text in _parts(part)}
    return {const_text(const)}
