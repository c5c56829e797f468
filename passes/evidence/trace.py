"""Running blocks of a graph on one sequence, and remembering what they gave while that stays true."""

from __future__ import annotations

import numpy as np

from fretsaw.ir import Graph, TensorType, evaluate, evaluate_graph, run
from fretsaw.ir.types import HandleType
from fretsaw.passes.evidence.blocks import Block, cuts
from fretsaw.passes.evidence.feeds import Sequence, feed, fresh_cache
from fretsaw.passes.evidence.wide import as_f64
from fretsaw.passes.kit.cost import sequence_dims

Array = np.ndarray
Key = tuple[bool, str, tuple[str, ...]]


class Trace:
    """Activations of the pipeline's graph on ``sequence``.

    ``real`` holds, by name, the values at which the first graph can be cut, as the model computes them: what blocks are
    fed with. A pass of class ``budget`` moves them; others keep them but for rounding.
    """

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.real: dict[str, Array] = {}
        self._inputs: tuple[Graph, dict[str, object]] | None = None
        self._given: dict[Key, tuple[Block, Array | None, list[Array]]] = {}

    def record(self, graph: Graph, keep: set[str] | None = None) -> list[Array]:
        """Run the whole of ``graph`` in its own dtypes, remember its cuts (those in ``keep``), return its outputs."""
        wanted = [v for v in cuts(graph) if keep is None or v.name in keep]
        values = evaluate_graph(graph, self.inputs(graph), wanted)
        self.real = {v.name: values[v] for v in wanted}
        return [values[v] for v in graph.outputs]

    def inputs(self, graph: Graph) -> dict[str, object]:
        """Inputs of the whole graph; the same arrays for every block of it. A KV cache is used once."""
        if self._inputs is None or self._inputs[0].inputs is not graph.inputs:
            self._inputs = (graph, feed(graph, self.sequence))
        fresh = {v.name: fresh_cache(graph, v, self.sequence) for v in graph.inputs if isinstance(v.type, HandleType)}
        return {**self._inputs[1], **fresh}

    def outputs(self, graph: Graph, block: Block, given: Array | None, *, wide: bool = False) -> list[Array]:
        """What ``block`` of ``graph`` makes of ``given`` at its cut, in f64 when ``wide``."""
        key = (wide, block.cut.name if block.cut else "", tuple(v.name for v in block.graph.outputs))
        found = self._given.get(key)
        if found is not None and found[1] is given and found[0].same(block):
            return found[2]
        out = self._run(graph, block, given, wide)
        self._given[key] = (block, given, out)
        return out

    def remember(self, block: Block, outputs: list[Array]) -> None:
        """``block``, which starts from the inputs, gave ``outputs`` in a run of another kind."""
        self._given[(False, "", tuple(v.name for v in block.graph.outputs))] = (block, None, outputs)

    def fresh_outputs(self, graph: Graph, block: Block, given: Array | None, *, wide: bool = False) -> list[Array]:
        """The same, and nothing is remembered: for a run that the next pass will not ask for."""
        return self._run(graph, block, given, wide)

    def forget(self, kept: list[Block], moved: frozenset[str] = frozenset()) -> None:
        """Drop what no block of ``kept`` gave, and activations that it does not start from or that mean something else
        now (``moved``)."""
        self.real = {b.cut.name: self.real[b.cut.name] for b in kept if b.cut and b.cut.name not in moved}
        keys = {(wide, b.cut.name if b.cut else "", tuple(v.name for v in b.graph.outputs))
                for b in kept for wide in (False, True)}  # fmt: skip
        self._given = {k: v for k, v in self._given.items() if k in keys}

    def stored_bytes(self) -> int:
        """Bytes of the activations held between checks."""
        arrays = {id(a): a for a in [*self.real.values(), *(a for _, _, out in self._given.values() for a in out)]}
        return sum(a.nbytes for a in arrays.values())

    def _run(self, graph: Graph, block: Block, given: Array | None, wide: bool) -> list[Array]:
        shown = as_f64(block.graph) if wide else block.graph
        whole = self.inputs(graph)
        env = sequence_dims(graph, self.sequence.ids.size)
        inputs: dict[str, object] = {}
        for old, new in zip(block.graph.inputs, shown.inputs, strict=True):
            if old == block.cut:
                assert given is not None and isinstance(new.type, TensorType)
                inputs[new.name] = _as(given.reshape([evaluate(d, env) for d in new.type.shape]), wide)
            else:
                value = whole[old.name]
                inputs[new.name] = _as(value, wide) if isinstance(value, np.ndarray) else value
        return run(shown, inputs)


def _as(array: Array, wide: bool) -> Array:
    return array.astype(np.float64) if wide and array.dtype == np.float32 else array
