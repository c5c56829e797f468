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

from dataclasses import replace

from fretsaw.ir import Attr, Graph, GraphBuilder, HandleType, Node, TensorType, Value, sym
from fretsaw.ir.errors import PassError
from fretsaw.passes.api import Outcome, graph_pass
from fretsaw.passes.packed.packing import Packing, T, most_tokens, name_of, token_axes, whole_sequences
from fretsaw.passes.packed.token_axes import Lead

R = sym("R")


@graph_pass(phase="packed", keeps="algebra")
def pack_tokens(graph: Graph) -> Outcome:
    """The packed program of a captured decoder; a program over whole sequences is left to ``pack_segments``.

    Raises:
        PassError: a node mixes tokens in a way that is not causal attention; names it.
    """
    if graph.phase == "packed" or whole_sequences(graph):
        return Outcome(graph)
    walk, rows, kv = _start(graph)
    hits: list[Node] = []
    for node in graph.nodes:
        if node.op == "attention":
            walk.values[node.out] = _attention(walk, node, kv, len(hits))
            hits.append(node)
        else:
            walk.copy(node)
    logits = graph.outputs[0]
    if len(graph.outputs) != 1 or walk.axes.lead(logits) is not Lead.BATCH:
        raise PassError(f"a decoder has one output [B, S, V], this graph has {', '.join(map(str, graph.outputs))}")
    picked = walk.build.emit("take", walk.values[logits], rows, name="rows_of_logits")
    packed = walk.build.finish([picked], phase="packed")
    return Outcome(_name_output(packed, picked, logits.name), tuple(hits))


def _start(graph: Graph) -> tuple[Packing, Value, Value]:
    """The walk with its inputs and constants, and the values rows and kv."""
    axes = token_axes(graph, "a decoder")
    high = most_tokens(graph, axes)
    build = GraphBuilder(graph.name, {"T": (1, high), "R": (0, high)})
    walk = Packing(graph, axes, build)
    tokens, positions = (
        build.input("tokens", TensorType("i32", (T,))),
        build.input("positions", TensorType("i32", (T,))),
    )
    rows = build.input("rows", TensorType("i32", (R,)))
    kv = build.input("kv", HandleType("kv_cache"))
    for value in graph.inputs:
        if value.name not in ("input_ids", "positions"):
            raise PassError(f"no packed form for input %{value.name}: {value.type}", where=graph.name)
        walk.values[value] = tokens if value.name == "input_ids" else positions
    for value, const in graph.consts.items():
        walk.values[value] = build.const(value.name, const)
    return walk, rows, kv


def _attention(walk: Packing, node: Node, kv: Value, layer: int) -> Value:
    q, k, v, *sinks = walk.operands(node)
    if walk.axes.lead(node["q"]) is not Lead.BATCH or node["q"].tensor.shape[1] != node["k"].tensor.shape[1]:
        raise walk.axes.mixes(node, "queries and keys are not of the same tokens")
    loc = node.loc.touched("pack_tokens")
    walk.build.emit_node("kv_append", [kv, k, v], {"layer": layer}, loc=loc)
    size = node["v"].tensor.shape[-1]
    attrs: dict[str, Attr] = {**dict(node.attrs), "layer": layer, "value_size": size}
    attrs.pop("causal", None)
    return walk.build.emit_node("cached_attention", [kv, q, *sinks], attrs, name=name_of(node), loc=loc).out


def _name_output(graph: Graph, picked: Value, name: str) -> Graph:
    """The graph whose output has the name of the old one; the logits of all tokens get a longer name."""

    def rename(value: Value) -> Value:
        if value == picked:
            return Value(name, value.type)
        return Value(f"{name}.all", value.type) if value.name == name else value

    nodes = tuple(
        replace(n, operands=tuple(map(rename, n.operands)), results=tuple(map(rename, n.results))) for n in graph.nodes
    )
    return replace(graph, nodes=nodes, outputs=tuple(map(rename, graph.outputs)))
