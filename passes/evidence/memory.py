"""How much memory the reference interpreter needs for a graph, from its types: a bound that a check can state."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from fretsaw.ir import Const, FileData, Graph, Node, OpData, TensorType, Value
from fretsaw.ir.ops.attention import BAND
from fretsaw.ir.types import ITEMSIZE, numpy_dtype
from fretsaw.passes.evidence.cost import fixed

VIEWS = frozenset(("reshape", "transpose", "slice", "expand"))  # NumPy may answer these without a copy
TEMPORARIES = 4  # arrays as large as a result that a reference holds while it computes one


def peak_bytes(graph: Graph, env: Mapping[str, int], wide: bool = False) -> int:
    """Most bytes of arrays that running ``graph`` holds at once, inputs included; memory-mapped files do not count.

    Args:
        env: Values of the symbols.
        wide: The run is in float64.
    """
    last = _last_uses(graph)
    sizes: dict[Value, int] = {v: _nbytes(v, env, wide) for v in graph.inputs}
    live = sum(sizes.values()) + cache_bytes(graph, env, wide)
    peak = live
    for i, node in enumerate(graph.nodes):
        widened = wide and node.op != "embedding"  # whose rows are widened, not its table
        loaded = sum(const_bytes(graph.consts[v], widened) for v in dict.fromkeys(node.operands) if v in graph.consts)
        for value in node.results:
            sizes[value] = _nbytes(value, env, wide)
            live += sizes[value]
        peak = max(peak, live + loaded + _scratch(node, env, wide))
        live -= sum(sizes.pop(v) for v in last.get(i, ()) if v in sizes)
    return peak


def _last_uses(graph: Graph) -> dict[int, list[Value]]:
    """Values that go after each node. A view keeps what it shows alive."""
    shown: dict[Value, Value] = {}  # view -> the value whose array it shares
    end: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        for value in node.results:
            shown[value] = shown.get(node.operands[0], node.operands[0]) if node.op in VIEWS else value
            end[value] = i
        for value in node.operands:
            end[value] = i
    end |= dict.fromkeys(graph.outputs, len(graph.nodes))
    for value, root in shown.items():
        end[root] = max(end.get(root, 0), end[value])
    out: dict[int, list[Value]] = {}
    for value, i in end.items():
        out.setdefault(i, []).append(value)
    return out


def const_bytes(const: Const, wide: bool) -> int:
    """Bytes that loading a constant allocates: its array, what it is computed from, and the copy that widens it."""
    size = _const_elements(const) * ITEMSIZE["f64" if wide and const.type.dtype == "f32" else const.type.dtype]
    if not const.is_exact:  # rounding to a format and back: integers, the codes, and the numbers again
        size *= 6
    if isinstance(const.data, OpData):
        return 2 * size + sum(const_bytes(operand, wide) for operand in const.data.operands)
    if isinstance(const.data, FileData):
        same = numpy_dtype(const.data.dtype).itemsize * _const_elements(const) == size and const.data.dtype != "bf16"
        return 0 if same else size + 2 * 4 * _const_elements(const) * (const.data.dtype == "bf16")
    return size


def _const_elements(const: Const) -> int:
    return prod(d for d in const.type.shape if isinstance(d, int))


def cache_bytes(graph: Graph, env: Mapping[str, int], wide: bool) -> int:
    """Keys and values that the KV cache holds at the end of the run, and their copy when one layer is read."""
    appended = [sum(_nbytes(v, env, wide) for v in n.operands[1:]) for n in graph.nodes if n.op == "kv_append"]
    return sum(appended) + max(appended, default=0)


def _scratch(node: Node, env: Mapping[str, int], wide: bool) -> int:
    """Bytes of what a reference holds beside operands and results."""
    own = TEMPORARIES * sum(_nbytes(v, env, wide) for v in (node.results or node.operands))
    if node.op in ("attention", "cached_attention", "segment_attention", "block_attention", "gather_attention"):
        # Scores of heads that share keys, a mask and its parts.
        q = fixed(node["q"].type, env)
        assert isinstance(q, TensorType)
        queries, heads = (int(str(d)) for d in q.shape[-3:-1])
        keys = queries
        group = heads
        if node.op == "attention":
            k = fixed(node["k"].type, env)
            assert isinstance(k, TensorType)
            keys, group = int(str(k.shape[1])), heads // int(str(k.shape[2]))
        elif node.op == "segment_attention":
            group = heads // int(str(node["k"].tensor.shape[1]))
        item = 8 if wide else 4
        queries = min(queries, BAND) if dict(node.attrs).get("causal") is not False else queries
        return own + keys * queries * (3 * item * group + 24)
    if node.op in ("topk", "router"):  # sorted copies and 64-bit indices of all columns
        return own + 2 * TEMPORARIES * _nbytes(node.operands[0], env, wide)
    if node.op == "experts":  # gate and up of the tokens of one expert, at most all of them
        index, gate_up = fixed(node["index"].type, env), node["gate_up"].tensor
        assert isinstance(index, TensorType)
        return own + 2 * TEMPORARIES * int(str(index.shape[0])) * int(str(gate_up.shape[1])) * (8 if wide else 4)
    return own


def _nbytes(value: Value, env: Mapping[str, int], wide: bool) -> int:
    if not isinstance(value.type, TensorType):
        return 0
    scale = 2 if wide and value.type.dtype == "f32" else 1
    return value.type.nbytes(env) * scale * (2 if value.type.dtype == "bf16" else 1)
