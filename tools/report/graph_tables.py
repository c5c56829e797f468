"""Tables of a graph: its signature, and what is in each layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from fretsaw.ir import Graph, Node, Value
from fretsaw.passes.kit.cost import TOKENS, node_flops, sequence_dims
from fretsaw.tools.report.layers import Group, groups_of
from fretsaw.tools.report.words import count, number, size
from fretsaw.tools.tables import make_table


def graph_tables(graph: Graph) -> Iterator[Table]:
    """The graph as a whole, then its blocks with alike layers in one line."""
    yield make_table("graph", ("", ""), graph_rows(graph))
    columns = ("block", "x", "nodes each", "ops", "parameters each", "weights each", "FLOPs each")
    yield make_table("blocks", columns, [_row(graph, g) for g in groups_of(graph)], right=(1, 2, 4, 5, 6))


def graph_rows(graph: Graph) -> list[tuple[str, ...]]:
    """Name and value of what is known about the whole graph."""
    consts = read_consts(graph, graph.nodes)
    return [
        ("graph", f"{graph.name}, phase {graph.phase}"),
        *[("input", str(v)) for v in graph.inputs],
        *[("output", str(v)) for v in graph.outputs],
        *[("dim", f"{name} in [{low}, {high}]") for name, (low, high) in graph.dims.items()],
        ("nodes", number(len(graph.nodes))),
        ("parameters", number(parameters(graph, consts))),
        ("weights", size(weight_bytes(graph, consts))),
        (f"FLOPs at {run_tokens(graph)} tokens", count(sum(flops(graph, graph.nodes)))),
    ]


def _row(graph: Graph, group: Group) -> tuple[str, ...]:
    nodes = group.block.nodes
    consts = read_consts(graph, nodes)
    return (
        group.label, str(len(group.blocks)), str(len(nodes)), ops_text(nodes), count(parameters(graph, consts)),
        size(weight_bytes(graph, consts)), count(sum(flops(graph, nodes))),
    )  # fmt: skip


def ops_text(nodes: Sequence[Node]) -> str:
    """``linear x4, add x2, attention``: most frequent first."""
    return ", ".join(op if n == 1 else f"{op} x{n}" for op, n in Counter(node.op for node in nodes).most_common())


def read_consts(graph: Graph, nodes: Sequence[Node]) -> list[Value]:
    """Constants that the nodes read, each once."""
    return list(dict.fromkeys(v for node in nodes for v in node.operands if graph.is_const(v)))


def parameters(graph: Graph, consts: Sequence[Value]) -> int:
    return sum(n for n in (graph.consts[v].type.numel for v in consts) if isinstance(n, int))


def weight_bytes(graph: Graph, consts: Sequence[Value]) -> int:
    return sum(graph.consts[v].nbytes for v in consts)


def flops(graph: Graph, nodes: Sequence[Node]) -> list[int]:
    """Floating point operations of each node for one sequence of ``TOKENS`` tokens, or fewer where it takes fewer."""
    env = sequence_dims(graph, TOKENS)
    return [node_flops(node, env) for node in nodes]


def run_tokens(graph: Graph) -> int:
    """Tokens of the run that FLOPs are counted for: ``TOKENS``, or as many as the graph takes."""
    return max([n for n in sequence_dims(graph, TOKENS).values() if n <= TOKENS], default=0)


def summary(graph: Graph) -> Mapping[str, object]:
    """The same as plain data, for ``--json``."""
    consts = read_consts(graph, graph.nodes)
    blocks = [
        {
            "label": g.label, "count": len(g.blocks), "layers": list(g.numbers), "nodes": len(g.block.nodes),
            "ops": dict(Counter(n.op for n in g.block.nodes)), "flops": sum(flops(graph, g.block.nodes)),
            "parameters": parameters(graph, read_consts(graph, g.block.nodes)),
        }
        for g in groups_of(graph)
    ]  # fmt: skip
    return {
        "graph": graph.name, "phase": graph.phase, "nodes": len(graph.nodes), "flops": sum(flops(graph, graph.nodes)),
        "tokens": run_tokens(graph), "parameters": parameters(graph, consts),
        "weight_bytes": weight_bytes(graph, consts), "blocks": blocks,
    }  # fmt: skip
