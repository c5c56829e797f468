"""What the planner has decided so far."""

from __future__ import annotations

from collections.abc import Sequence

from fretsaw.backends.tvm.kv_storage import kv_format
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.backends.tvm.plan.refuse import refusal
from fretsaw.backends.tvm.plan.weights import TensorPool
from fretsaw.backends.tvm.steps import Arg, KernelSpec, Launch
from fretsaw.ir import Const, DType, Graph, Node, Shape, TensorType, Value


class Context:
    """Covered nodes, launches by position, packed tensors and aliases of one plan being made."""

    def __init__(self, graph: Graph, options: TvmOptions) -> None:
        self.graph, self.options = graph, options
        self.pool = TensorPool()
        self.kv = kv_format(graph)
        self.covered: set[int] = set()
        self.aliases: dict[Value, Value] = {}
        self.angles: dict[object, tuple[Value, Value]] = {}  # cos and sin by (positions, inv_freq, scale)
        self._position = {id(node): i for i, node in enumerate(graph.nodes)}
        self._launches: list[tuple[int, Launch]] = []
        self._temporaries = 0

    def add(
        self, spec: KernelSpec, inputs: Sequence[Arg], outputs: Sequence[Value], nodes: Sequence[Node], *,
        at: Node | None = None, scalars: Sequence[int] = (), writes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Cover ``nodes`` by one launch, standing where the last of them (or ``at``) stood."""
        self.covered.update(id(n) for n in nodes)
        place = self._position[id(at)] if at is not None else max(self._position[id(n)] for n in nodes)
        covers = tuple(v.name for n in nodes for v in n.results)
        launch = Launch(spec, tuple(inputs), tuple(outputs), tuple(scalars), tuple(writes), covers)
        self._launches.append((place, launch))

    def ordered(self) -> tuple[Launch, ...]:
        """All launches in the order of their places; those of one place keep the order in which they were added."""
        return tuple(launch for _, launch in sorted(self._launches, key=lambda x: x[0]))

    def alias(self, node: Node) -> None:
        """A reshape only renames memory."""
        self.covered.add(id(node))
        self.aliases[node.out] = node.operands[0]

    def temporary(self, base: str, dtype: DType, shape: Shape) -> Value:
        """A value that the graph does not have, between two launches of one site."""
        self._temporaries += 1
        return Value(f"{base}.t{self._temporaries}", TensorType(dtype, shape))

    def const(self, value: Value, node: Node, slot: str) -> Const:
        """The constant behind an operand.

        Raises:
            LoweringError: the operand is computed.
        """
        found = self.graph.consts.get(value)
        if found is None:
            what = f"{node.op}: {slot} must be a constant for the tvm backend, is computed"
            raise refusal(self.graph, node, what, slot=slot)
        return found
