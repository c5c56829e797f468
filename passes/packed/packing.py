"""The walk that both packing passes share: the graph being built, and what each value of the old one became."""

from __future__ import annotations

from dataclasses import dataclass, field

from fretsaw.ir import Dim, Graph, GraphBuilder, Node, TensorType, Value, get_op, sym
from fretsaw.ir.errors import PassError
from fretsaw.passes.packed.token_axes import Lead, TokenAxes
from fretsaw.passes.packed.token_ops import pack_node

LONGEST_STEP = 1 << 20  # tokens; a range for T, no promise of memory
T = sym("T")


@dataclass
class Packing:
    """State of one walk over ``old``."""

    old: Graph
    axes: TokenAxes
    build: GraphBuilder
    values: dict[Value, Value] = field(default_factory=dict)
    wide: dict[Value, Value] = field(default_factory=dict)  # i64 copies of the i32 inputs

    def value(self, old: Value, reader: Node) -> Value:
        """What ``reader`` reads instead of ``old``."""
        new = self.values[old]
        if old.type == new.type or old not in self.old.inputs or _as_any_integer(reader, old):
            return new
        if new not in self.wide:
            self.wide[new] = self.build.emit("cast", new, name=f"{new.name}.i64", loc=reader.loc, dtype="i64")
        return self.wide[new]

    def operands(self, node: Node) -> list[Value]:
        return [self.value(v, node) for v in node.operands]

    def copy(self, node: Node) -> None:
        """Emit the packed form of a node that looks at each token, or each sequence, alone.

        Raises:
            PassError: it does not.
        """
        if any(self.axes.holds_tokens(v) for v in (*node.operands, *node.results)):
            op, operands, attrs = pack_node(self.axes, node, self.operands(node), self.build)
        else:
            op, operands, attrs = node.op, self.operands(node), dict(node.attrs)
        new = self.build.emit_node(op, operands, attrs, name=name_of(node), loc=node.loc)
        self.values.update(zip(node.results, new.results, strict=True))


def _as_any_integer(reader: Node, value: Value) -> bool:
    """``reader`` takes any integer type wherever it reads ``value``."""
    indices = get_op(reader.op).indices
    names = get_op(reader.op).slot_names(len(reader.operands))
    return all(slot in indices for slot, v in zip(names, reader.operands, strict=True) if v == value)


def name_of(node: Node) -> str:
    return node.results[0].name if node.results else ""


def token_axes(graph: Graph, kind: str, *, segments: bool = False) -> TokenAxes:
    """The dims of the graph's batch.

    Raises:
        PassError: there is no ``input_ids`` [B, S].
    """
    ids = next((v for v in graph.inputs if v.name == "input_ids"), None)
    if ids is None or not isinstance(ids.type, TensorType) or ids.type.rank != 2:
        raise PassError(f"{kind} has an input input_ids [B, S]", where=graph.name)
    batch, steps = ids.type.shape
    return TokenAxes(batch, steps, T, segments)


def most_tokens(graph: Graph, axes: TokenAxes) -> int:
    """Tokens of the largest padded batch, a range for T."""
    high = 1
    for dim in (axes.batch, axes.steps):
        high *= dim if isinstance(dim, int) else max(graph.dims[name][1] for name in dim.symbols)
    return min(high, LONGEST_STEP)


def whole_sequences(graph: Graph) -> bool:
    """The program needs whole sequences in a step: attention looks ahead, or an output is one row per sequence."""
    if any(n.op == "attention" and not n.attr("causal") for n in graph.nodes):
        return True
    ids = next((v for v in graph.inputs if v.name == "input_ids" and isinstance(v.type, TensorType)), None)
    if ids is None or ids.tensor.rank != 2 or not isinstance(ids.tensor.shape[0], Dim):
        return False
    batch, steps = ids.tensor.shape
    axes = TokenAxes(batch, steps, T, segments=True)
    return any(axes.lead(v) is Lead.SEQUENCE for v in graph.outputs)
