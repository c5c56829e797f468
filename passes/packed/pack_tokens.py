"""Make a decoder token-major: [B, S, ...] becomes [T, ...], the tokens of all sequences one after another.

    inputs input_ids, positions [B, S]           ==>   tokens, positions i32[T], rows i32[R], kv
    %y = op(%x)          [B, S, ..] or [B*S, ..] ==>   %y = op(%x)                                  [T, ..]
    %o = attention(%q, %k, %v)                   ==>   kv_append(%kv, %k, %v) {layer}
                                                       %o = cached_attention(%kv, %q) {layer}
    output logits [B, S, V]                      ==>   take(logits, %rows)                          [R, V]

Why:    prefill, chunked prefill, decode and mixed batches become one program, and padding never exists.
Needs:  every node maps each token from that token alone; attention is the only one that looks at others, and is causal.
Keeps:  algebra (the same sums in another order of rows).
Stops:  one walk.
Source: design of ragged batches in Orca (OSDI 2022) and vLLM, arXiv:2309.06180.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fretsaw.ir import Attr, Dim, Graph, GraphBuilder, HandleType, Node, TensorType, Value, sym
from fretsaw.ir.errors import PassError
from fretsaw.passes.api import Outcome, graph_pass
from fretsaw.passes.packed.token_axes import Lead, TokenAxes, mixes
from fretsaw.passes.packed.token_ops import pack_node

AS_INTEGERS = ("embedding", "rope", "take")  # ops that read any integer type
LONGEST_STEP = 1 << 20  # tokens; a range for T, no promise of memory
T, R = sym("T"), sym("R")


@dataclass
class Packing:
    """State of one walk: the graph being built and what each value of the old graph became."""

    old: Graph
    axes: TokenAxes
    build: GraphBuilder
    kv: Value
    values: dict[Value, Value] = field(default_factory=dict)
    wide: dict[Value, Value] = field(default_factory=dict)  # i64 copies of the i32 inputs
    layer: int = 0

    def value(self, old: Value, reader: Node) -> Value:
        """What ``reader`` reads instead of ``old``."""
        new = self.values[old]
        if old.type == new.type or old not in self.old.inputs or reader.op in AS_INTEGERS:
            return new
        if new not in self.wide:
            self.wide[new] = self.build.emit("cast", new, name=f"{new.name}.i64", loc=reader.loc, dtype="i64")
        return self.wide[new]


@graph_pass(phase="packed", keeps="algebra")
def pack_tokens(graph: Graph) -> Outcome:
    """The packed program of a captured decoder.

    Raises:
        PassError: a node mixes tokens in a way that is not causal attention; names it.
    """
    if graph.phase == "packed":
        return Outcome(graph)
    axes = _token_axes(graph)
    state = _start(graph, axes)
    for node in graph.nodes:
        _pack(state, node)
    logits = graph.outputs[0]
    if len(graph.outputs) != 1 or axes.lead(logits) is not Lead.BATCH:
        raise PassError(f"a decoder has one output [B, S, V], this graph has {', '.join(map(str, graph.outputs))}")
    rows = next(v for v in state.build.inputs if v.name == "rows")
    picked = state.build.emit("take", state.values[logits], rows, name="rows_of_logits")
    packed = state.build.finish([picked], phase="packed")
    hits = tuple(n for n in graph.nodes if n.op == "attention")
    return Outcome(_name_output(packed, picked, logits.name), hits)


def _token_axes(graph: Graph) -> TokenAxes:
    ids = next((v for v in graph.inputs if v.name == "input_ids"), None)
    if ids is None or not isinstance(ids.type, TensorType) or ids.type.rank != 2:
        raise PassError("a decoder has an input input_ids [B, S]", where=graph.name)
    batch, steps = ids.type.shape
    return TokenAxes(batch, steps, T)


def _start(graph: Graph, axes: TokenAxes) -> Packing:
    high = 1
    for dim in (axes.batch, axes.steps):
        high *= dim if isinstance(dim, int) else _high(graph, dim)
    high = min(high, LONGEST_STEP)
    build = GraphBuilder(graph.name, {"T": (1, high), "R": (0, high)})
    state_values: dict[Value, Value] = {}
    tokens, positions = (
        build.input("tokens", TensorType("i32", (T,))),
        build.input("positions", TensorType("i32", (T,))),
    )
    build.input("rows", TensorType("i32", (R,)))
    kv = build.input("kv", HandleType("kv_cache"))
    for value in graph.inputs:
        if value.name not in ("input_ids", "positions"):
            raise PassError(f"no packed form for input %{value.name}: {value.type}", where=graph.name)
        state_values[value] = tokens if value.name == "input_ids" else positions
    for value, const in graph.consts.items():
        state_values[value] = build.const(value.name, const)
    return Packing(graph, axes, build, kv, state_values)


def _high(graph: Graph, dim: Dim) -> int:
    return max(graph.dims[name][1] for name in dim.symbols)


def _pack(state: Packing, node: Node) -> None:
    if node.op == "attention":
        state.values[node.out] = _attention(state, node)
        return
    if not any(state.axes.holds_tokens(v) for v in (*node.operands, *node.results)):
        new = state.build.emit_node(
            node.op, [state.value(v, node) for v in node.operands], dict(node.attrs), name=_name(node), loc=node.loc
        )
    else:
        op, operands, attrs = pack_node(state.axes, node, [state.value(v, node) for v in node.operands], state.build)
        new = state.build.emit_node(op, operands, attrs, name=_name(node), loc=node.loc)
    state.values.update(zip(node.results, new.results, strict=True))


def _name(node: Node) -> str:
    return node.results[0].name if node.results else ""


def _attention(state: Packing, node: Node) -> Value:
    if not node.attr("causal"):
        raise mixes(node, "attention is bidirectional, so tokens that come later change earlier ones")
    q, k, v, *sinks = [state.value(x, node) for x in node.operands]
    if state.axes.lead(node["q"]) is not Lead.BATCH or node["q"].tensor.shape[1] != node["k"].tensor.shape[1]:
        raise mixes(node, "queries and keys are not of the same tokens")
    loc = node.loc.touched("pack_tokens")
    layer, state.layer = state.layer, state.layer + 1
    state.build.emit_node("kv_append", [state.kv, k, v], {"layer": layer}, loc=loc)
    size = node["v"].tensor.shape[-1]
    attrs: dict[str, Attr] = {**dict(node.attrs), "layer": layer, "value_size": size}
    attrs.pop("causal", None)
    return state.build.emit_node("cached_attention", [state.kv, q, *sinks], attrs, name=_name(node), loc=loc).out


def _name_output(graph: Graph, picked: Value, name: str) -> Graph:
    """The graph whose output has the name of the old one; the logits of all tokens get a longer name."""
    from dataclasses import replace

    def rename(value: Value) -> Value:
        if value == picked:
            return Value(name, value.type)
        return Value(f"{name}.all", value.type) if value.name == name else value

    nodes = tuple(
        replace(n, operands=tuple(map(rename, n.operands)), results=tuple(map(rename, n.results))) for n in graph.nodes
    )
    return replace(graph, nodes=nodes, outputs=tuple(map(rename, graph.outputs)))
