"""Who reads what, through views: a reshape or transpose in between does not hide the reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fretsaw.ir import Graph, Node, Use, Value, get_op
from fretsaw.passes.kit.analysis.once import analysis


@dataclass(frozen=True)
class Read:
    """Use ``use`` reads a value, or a view of it made by the nodes ``through``, first one first."""

    use: Use
    through: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Uses:
    """Readers and sources of values, views looked through.

    Args:
        roots: For every result of a view, the value that it shows in the end.
        observed: Values that are graph outputs, and the sources of views that are.
    """

    roots: Mapping[Value, Value]
    observed: frozenset[Value]
    _reads: Mapping[Value, tuple[Read, ...]]

    def reads(self, value: Value) -> tuple[Read, ...]:
        """Every use of ``value`` or of a view of it by a node that is no view, in node order."""
        return self._reads.get(value, ())

    def root(self, value: Value) -> Value:
        """The value that ``value`` is a view of; itself when it is none."""
        return self.roots.get(value, value)

    def sole_read(self, value: Value) -> Read | None:
        """The only read, when there is one and neither the value nor a view of it is a graph output."""
        found = self.reads(value)
        return found[0] if len(found) == 1 and value not in self.observed else None


@analysis
def uses(graph: Graph) -> Uses:
    """Uses of every value of ``graph``; linear in the number of reads times the depth of chains of views."""
    roots: dict[Value, Value] = {}
    chains: dict[Value, tuple[Node, ...]] = {}  # of a view: its nodes from the root on
    for node in graph.nodes:
        if get_op(node.op).view:
            source = node.operands[0]
            roots[node.out] = roots.get(source, source)
            chains[node.out] = (*chains.get(source, ()), node)
    reads: dict[Value, list[Read]] = {}
    for node in graph.nodes:
        if get_op(node.op).view:
            continue
        for i, value in enumerate(node.operands):
            chain = chains.get(value, ())
            for depth in range(len(chain) + 1):  # the value itself, then what it is a view of
                seen = chain[depth].operands[0] if depth < len(chain) else value
                reads.setdefault(seen, []).append(Read(Use(node, i), chain[depth:]))
    observed = set(graph.outputs)
    for value in graph.outputs:
        observed.update(node.operands[0] for node in chains.get(value, ()))
    return Uses(roots, frozenset(observed), {v: tuple(r) for v, r in reads.items()})
