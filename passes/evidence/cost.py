"""What a graph costs: arithmetic, weights read and activations written, from shapes alone.

Each op declares its floating point operations beside its shape rule (``flops`` in ``ir/ops``). A graph's cost is a
polynomial in its symbols; it is evaluated for one sequence of ``tokens`` tokens with the logits of every one wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from fretsaw.ir import Graph, Node, TensorType, Value, evaluate, get_op
from fretsaw.ir.dims import Dim
from fretsaw.ir.errors import FretsawError
from fretsaw.ir.interp import resolve_attrs
from fretsaw.ir.kv import block_dims
from fretsaw.ir.types import ValueType

TOKENS = 512  # of the ledger's numbers


@dataclass(frozen=True)
class Cost:
    """Of one run.

    Args:
        flops: Floating point operations; a multiply-add is two.
        weight_bytes: Bytes of the constants that nodes read, each constant once, in their storage formats.
        activation_bytes: Bytes that nodes write: every result but that of a reshape, and what goes to the cache.
        parameters: Elements of those constants.
    """

    flops: int
    weight_bytes: int
    activation_bytes: int
    parameters: int

    def __sub__(self, other: Cost) -> Cost:
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return Cost(*(mine - theirs for mine, theirs in pairs))

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def cost(graph: Graph, tokens: int = TOKENS) -> Cost:
    """The cost of one sequence of ``tokens`` tokens, also where the model's context is shorter: costs of graphs compare
    only at one length, and a packed program no longer knows the context.

    Raises:
        FretsawError: an op does not say what it costs (our bug).
    """
    env = sequence_dims(graph, tokens, within=False)
    key = tuple(sorted(env.items()))
    flops = written = 0
    for node in graph.nodes:
        found = node.__dict__.get("_cost")  # a node is frozen: what it costs once it costs in every graph
        if found is None or found[0] != key:
            found = node.__dict__["_cost"] = (key, node_flops(node, env), _written(node, env))
        flops += found[1]
        written += found[2]
    read = {v for node in graph.nodes for v in node.operands} | set(graph.outputs)
    consts = [const for value, const in graph.consts.items() if value in read]
    elements = sum(n for n in (const.type.numel for const in consts) if isinstance(n, int))
    return Cost(flops, sum(const.nbytes for const in consts), written, elements)


def sequence_dims(graph: Graph, tokens: int, *, within: bool = True) -> dict[str, int]:
    """Values of the graph's symbols for one sequence of ``tokens`` tokens: a leading axis of inputs that have a second
    one is the batch, and so is B of ``cu`` [B + 1]; every other symbol counts tokens. They stay ``within`` the ranges
    of the graph, so within the model's context, unless told otherwise."""
    batch = {
        str(v.type.shape[0])
        for v in graph.inputs
        if isinstance(v.type, TensorType) and v.type.rank > 1 and isinstance(v.type.shape[1], Dim)
    }
    offsets = [d for v in graph.inputs if v.name == "cu" for d in v.tensor.shape]
    batch |= {name for d in offsets if isinstance(d, Dim) for name in d.symbols}
    wanted = {name: max(1 if name in batch else tokens, low) for name, (low, _) in graph.dims.items()}
    wanted |= {name: n for name, n in block_dims([tokens], [0]).items() if name in wanted}
    return {name: min(n, graph.dims[name][1]) for name, n in wanted.items()} if within else wanted


def node_flops(node: Node, env: Mapping[str, int]) -> int:
    """Floating point operations of one node where the symbols have the values of ``env``."""
    count = get_op(node.op).flops
    if count is None:
        raise FretsawError(f"{node.op} does not say how many operations it takes", where=node.loc.module)
    operands = [fixed(v.type, env) for v in node.operands]
    return count(operands, [fixed(v.type, env) for v in node.results], resolve_attrs(node, env))


def fixed(kind: ValueType, env: Mapping[str, int]) -> ValueType:
    """The type with every symbol replaced by its value."""
    if not isinstance(kind, TensorType) or kind.is_static:
        return kind
    return replace(kind, shape=tuple(evaluate(d, env) for d in kind.shape))


def _written(node: Node, env: Mapping[str, int]) -> int:
    if node.op == "reshape":
        return 0
    return sum(_nbytes(v, env) for v in (node.results or node.operands))  # without results: it writes to its handle


def _nbytes(value: Value, env: Mapping[str, int]) -> int:
    return value.type.nbytes(env) if isinstance(value.type, TensorType) else 0
