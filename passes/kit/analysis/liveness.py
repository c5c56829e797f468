"""Liveness: which results must be in memory at each step of the program's order, and how many bytes that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fretsaw.ir import Graph, TensorType, Value, evaluate
from fretsaw.ir.types import ITEMSIZE
from fretsaw.passes.kit.analysis.once import analysis


@dataclass(frozen=True)
class Liveness:
    """When each value is made and last read, by position in ``graph.nodes``.

    Inputs are made at -1. An output is read at the end, at ``steps``. What nobody reads dies where it is made.
    Constants are not activations and are left out, as are handles.
    """

    steps: int
    spans: Mapping[Value, tuple[int, int]]

    def live(self, step: int) -> frozenset[Value]:
        """Values in memory while node ``step`` runs: its operands, its results, and what is read later."""
        return frozenset(v for v, (made, last) in self.spans.items() if made <= step <= max(made, last))

    def profile(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Bytes of live activations while each node runs, symbols bound by ``sizes``. Views count like copies.

        Raises:
            KeyError: a symbol has no size.
        """
        change = [0] * (self.steps + 1)
        for value, (made, last) in self.spans.items():
            size = _nbytes(value.tensor, sizes)
            change[max(made, 0)] += size
            change[min(max(made, last), self.steps - 1) + 1] -= size
        out, now = [], 0
        for step in range(self.steps):
            now += change[step]
            out.append(now)
        return tuple(out)

    def peak(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """(bytes, step) of the first step that needs the most memory; (0, -1) for a graph without nodes."""
        found = self.profile(sizes)
        return (max(found), found.index(max(found))) if found else (0, -1)


def _nbytes(kind: TensorType, sizes: Mapping[str, int]) -> int:
    total = ITEMSIZE[kind.dtype]
    for dim in kind.shape:
        total *= evaluate(dim, sizes)
    return total


@analysis
def liveness(graph: Graph) -> Liveness:
    """Spans of all inputs and results of ``graph`` in its own order."""
    steps = len(graph.nodes)
    made = dict.fromkeys(graph.inputs, -1) | {v: i for i, n in enumerate(graph.nodes) for v in n.results}
    last: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        last.update((v, i) for v in node.operands)
    last.update((v, steps) for v in graph.outputs)
    spans = {v: (at, last.get(v, at)) for v, at in made.items() if isinstance(v.type, TensorType)}
    return Liveness(steps, spans)
