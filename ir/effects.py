"""What nodes read and write behind handles: which parts, and which of two accesses have to keep their order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fretsaw.ir.node import Graph, Node, Value
from fretsaw.ir.op import Attr, get_op
from fretsaw.ir.traits import Access


@dataclass(frozen=True)
class State:
    """A handle, or a part of it (an empty ``part`` is the whole), told apart from others of that name by ``key``."""

    handle: Value
    part: str = ""
    key: Attr = None

    def overlaps(self, other: State) -> bool:
        """A write to one may be seen in the other."""
        if self.handle != other.handle:
            return False
        if not (self.part and other.part):
            return True
        return self.part == other.part and (self.key is None or other.key is None or self.key == other.key)


def reads(node: Node) -> Iterator[State]:
    """What ``node`` looks at."""
    yield from _states(node, get_op(node.op).reads)


def writes(node: Node) -> Iterator[State]:
    """What ``node`` changes."""
    yield from _states(node, get_op(node.op).writes)


def _states(node: Node, accesses: Iterable[Access]) -> Iterator[State]:
    for access in accesses:
        handle = node.get(access.slot)
        if handle is not None:
            yield State(handle, access.part, node.attr(access.by) if access.by else None)


@dataclass(frozen=True)
class Written:
    """The states that nodes of a graph write: what else they read stays the same from its first node to its last."""

    states: tuple[State, ...]

    @staticmethod
    def of(graph: Graph) -> Written:
        return Written(tuple(dict.fromkeys(s for node in graph.nodes for s in writes(node))))

    def touched(self, node: Node) -> list[State]:
        """Those that ``node`` reads or writes."""
        mine = [*reads(node), *writes(node)]
        return [s for s in self.states if any(s.overlaps(m) for m in mine)] if mine else []


def kept_order(graph: Graph) -> Iterator[tuple[int, int, State]]:
    """Positions of two nodes, the earlier first, and the state for which they have to keep their order. A write and
    another access of one state are joined by such pairs, directly or through others."""
    written = Written.of(graph)
    last: dict[State, int] = {}
    since: dict[State, list[int]] = {}  # reads since the last write
    for j, node in enumerate(graph.nodes):
        own = list(writes(node))
        for state in written.touched(node):
            if state in last:
                yield last[state], j, state
            if any(state.overlaps(w) for w in own):
                yield from ((i, j, state) for i in since.pop(state, ()))
                last[state] = j
            else:
                since.setdefault(state, []).append(j)
