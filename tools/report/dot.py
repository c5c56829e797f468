"""A graph in DOT, the language of Graphviz: one cluster for each layer, alike layers drawn once.

A cluster that stands for several layers shows the nodes of the first. Layers that are not shown are one box; the edges
that enter and leave them are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fretsaw.ir import Graph, Node, Value
from fretsaw.ir.errors import UsageError
from fretsaw.tools.report.layers import Group, groups_of, ranges
from fretsaw.tools.report.words import plain


def to_dot(graph: Graph, layer: int | None = None) -> str:
    """The graph as DOT text.

    Args:
        layer: Show the nodes of this layer only, every other layer as a box. None: those of one layer of each kind.

    Raises:
        UsageError: there is no such layer.
    """
    groups = groups_of(graph)
    if layer is not None:
        groups = _expanded(groups, layer)
    home = _homes(groups, layer)
    lines = [f"digraph {quoted(graph.name)} {{", "  rankdir=TB;", '  node [shape=box, fontname="sans-serif"];']
    lines += [f"  {quoted('in:' + v.name)} [label={quoted(str(v))}, shape=ellipse];" for v in graph.inputs]
    for number, group in enumerate(groups):
        lines += _cluster(number, group, layer)
    lines += [f"  {quoted('out:' + v.name)} [label={quoted(str(v))}, shape=ellipse];" for v in graph.outputs]
    return "\n".join([*lines, *_edges(graph, home), "}"]) + "\n"


def _expanded(groups: tuple[Group, ...], layer: int) -> tuple[Group, ...]:
    """The group that has the layer split, so that the layer stands alone between its neighbours."""
    if not any(layer in g.numbers for g in groups):
        known = ranges(n for g in groups for n in g.numbers)
        raise UsageError(f"there is no layer {layer}", hint=f"there are layers {known}" if known else "there are none")
    out: list[Group] = []
    for group in groups:
        parts = [tuple(b for b in group.blocks if (b.number or 0) < layer)]
        parts.append(tuple(b for b in group.blocks if b.number == layer))
        parts.append(tuple(b for b in group.blocks if (b.number or 0) > layer))
        keep = [group.blocks] if group.block.number is None or layer not in group.numbers else parts
        out += [Group(part, group.several_stacks) for part in keep if part]
    return tuple(out)


def _open(group: Group, layer: int | None) -> bool:
    """Whether the nodes of the group are drawn."""
    return layer is None or group.block.number in (None, layer)


def _homes(groups: tuple[Group, ...], layer: int | None) -> Mapping[int, str]:
    """The DOT name that stands for a node, by the node's identity."""
    home: dict[int, str] = {}
    for number, group in enumerate(groups):
        for block in group.blocks:
            alike = zip(block.nodes, group.block.nodes, strict=False)  # alike blocks have as many nodes
            for node, shown in alike:
                home[id(node)] = _name(shown) if _open(group, layer) else f"box:{number}"
    return home


def _cluster(number: int, group: Group, layer: int | None) -> Iterator[str]:
    if not _open(group, layer):
        yield f"  {quoted(f'box:{number}')} [label={quoted(_title(group))}, shape=box3d];"
        return
    yield f"  subgraph {quoted(f'cluster_{number}')} {{"
    yield f"    label={quoted(_title(group))};"
    for node in group.block.nodes:
        label = "\n".join([node.op, *map(str, node.results)])
        yield f"    {quoted(_name(node))} [label={quoted(label)}, tooltip={quoted(node.loc.module)}];"
    yield "  }"


def _title(group: Group) -> str:
    count = len(group.blocks)
    return f"{group.label} (x{count}, {len(group.block.nodes)} nodes each)" if count > 1 else group.label


def _edges(graph: Graph, home: Mapping[int, str]) -> Iterator[str]:
    made: dict[Value, str] = {v: f"in:{v.name}" for v in graph.inputs}
    made.update((v, home[id(node)]) for node in graph.nodes for v in node.results)
    seen: set[tuple[str, str]] = set()
    arrows = [(made[v], home[id(node)]) for node in graph.nodes for v in node.operands if v in made]
    arrows += [(made[v], f"out:{v.name}") for v in graph.outputs if v in made]
    for left, right in arrows:
        if left != right and (left, right) not in seen:
            seen.add((left, right))
            yield f"  {quoted(left)} -> {quoted(right)};"


def _name(node: Node) -> str:
    return (
        f"n:{node.results[0].name}"
        if node.results
        else f"e:{node.op}:{'.'.join(v.name for v in node.operands)}:" + (",".join(f"{k}={v}" for k, v in node.attrs))
    )


def quoted(text: str) -> str:
    r"""A DOT string: quotes and backslashes escaped, a line break as ``\n``, no control characters."""
    escaped = "\n".join(map(plain, text.split("\n"))).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


__all__ = ["quoted", "to_dot"]
