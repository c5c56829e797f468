"""Make a program over whole sequences (an encoder) token-major: no token is padding.

    inputs input_ids, positions [B, S]           ==>   tokens, positions i32[T], cu i32[B + 1]
    %y = op(%x)          [B, S, ..] or [B*S, ..] ==>   %y = op(%x)                                  [T, ..]
    %o = attention(%q, %k, %v)                   ==>   %o = segment_attention(%q, %k, %v, %cu)
    %p = pool(%x), mean(%x) {axis = 1}, ...      ==>   %p = segment_pool(%x, %cu)                   [B, D]
    %z = op(%p)          [B, ..]                 ==>   %z = op(%p)                                  [B, ..]

Why:    a batch of ragged sequences costs its own tokens and no more; sequence b is rows cu[b] .. cu[b + 1].
Needs:  every node maps each token, or each sequence, from itself alone; only attention and pooling look at others of
        the same sequence. Each row of the padded batch is one whole sequence of S tokens.
Keeps:  algebra (the same sums in another order of rows).
Stops:  one walk.
Source: ByteTransformer, arXiv:2210.03052; offsets as in FlashAttention's variable-length interface, arXiv:2205.14135.
"""

from __future__ import annotations

from fretsaw.ir import GraphBuilder, Node, TensorType, Value, sym
from fretsaw.ir.errors import PassError
from fretsaw.ir.node import Graph
from fretsaw.ir.types import INTS
from fretsaw.passes.api import Outcome, graph_pass
from fretsaw.passes.packed.packing import Packing, T, most_tokens, name_of, token_axes, whole_sequences
from fretsaw.passes.packed.token_axes import Lead

RENAMED = {"input_ids": "tokens"}
REDUCTIONS = ("mean", "max")


@graph_pass(phase="packed", keeps="algebra")
def pack_segments(graph: Graph) -> Outcome:
    """The packed program of a captured encoder; a decoder is left alone.

    Raises:
        PassError: a node mixes tokens, or sequences, in a way that has no packed form; names it.
    """
    if graph.phase == "packed" or not whole_sequences(graph):
        return Outcome(graph)
    walk, cu = _start(graph)
    hits: list[Node] = []
    for node in graph.nodes:
        if _mixed(walk, node, cu):
            hits.append(node)
        else:
            walk.copy(node)
    for value in graph.outputs:
        if walk.axes.lead(value) is Lead.NONE:
            what = f"output %{value.name} {value.type} is neither per token nor per sequence"
            raise PassError(what, where=graph.name)
    return Outcome(walk.build.finish([walk.values[v] for v in graph.outputs], phase="packed"), tuple(hits))


def _start(graph: Graph) -> tuple[Packing, Value]:
    axes = token_axes(graph, "an encoder", segments=True)
    if isinstance(axes.batch, int) or isinstance(axes.steps, int):
        raise PassError(
            f"input_ids is [{axes.batch}, {axes.steps}], packing needs any number of sequences of any length",
            where=graph.name,
        )
    batch = str(axes.batch)
    build = GraphBuilder(graph.name, {"T": (0, most_tokens(graph, axes)), batch: graph.dims[batch]})
    walk = Packing(graph, axes, build)
    for value in graph.inputs:
        kind = value.type
        if not isinstance(kind, TensorType) or kind.dtype not in INTS or kind.shape != (axes.batch, axes.steps):
            raise PassError(f"no packed form for input %{value.name}: {kind}", where=graph.name)
        walk.values[value] = build.input(RENAMED.get(value.name, value.name), TensorType("i32", (T,)))
    cu = build.input("cu", TensorType("i32", (sym(batch) + 1,)))
    for value, const in graph.consts.items():
        walk.values[value] = build.const(value.name, const)
    return walk, cu


def _mixed(walk: Packing, node: Node, cu: Value) -> bool:
    """Emit ``node`` if it is one that looks at other tokens of its sequence."""
    if node.op == "attention":
        new = _attention(walk, node, cu)
    elif node.op in ("pool", *REDUCTIONS, "slice"):
        kind = _pooling(walk, node)
        if kind is None:
            return False
        new = _pool(walk, node, cu, kind)
    else:
        return False
    walk.values[node.out] = new
    return True


def _attention(walk: Packing, node: Node, cu: Value) -> Value:
    q, k, v, *sinks = walk.operands(node)
    if any(walk.axes.lead(node[slot]) is not Lead.BATCH for slot in "qkv"):
        raise walk.axes.mixes(node, "queries and keys are not of the same tokens")
    loc = node.loc.touched("pack_segments")
    return walk.build.emit_node(
        "segment_attention", [q, k, v, cu, *sinks], dict(node.attrs), name=name_of(node), loc=loc
    ).out


def _pooling(walk: Packing, node: Node) -> str | None:
    """The kind of pooling that ``node`` does; None when it does none."""
    x = node["x"]
    if walk.axes.lead(x) is not Lead.BATCH or x.tensor.rank != 3:
        return None
    if node.op == "pool":
        return node.str_attr("kind")
    if node.int_attr("axis") != 1:
        return None
    if node.op == "slice":
        return "first" if (node.attr("start"), node.attr("end")) == (0, 1) else None
    return node.op


def _pool(walk: Packing, node: Node, cu: Value, kind: str) -> Value:
    loc, (x,) = node.loc.touched("pack_segments"), walk.operands(node)
    plain = node.out.tensor.rank == 2
    name = name_of(node)
    pooled = walk.build.emit("segment_pool", x, cu, name=name if plain else f"{name}.pool", loc=loc, kind=kind)
    if plain:
        return pooled
    return walk.build.emit("reshape", pooled, name=name, loc=node.loc, shape=node.out.tensor.shape)  # [B, 1, D]
