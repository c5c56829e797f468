"""Cutting a graph where one value carries everything that the data has become, such as the residual stream.

    %a = embedding(%ids)        |  block 1: inputs -> %a
    %b = layer(%a, %tables)     |  block 2: %a -> %b
    %y = head(%b)               |  block 3: %b -> outputs

A value is a cut when, once it is there, nothing computed before it from the first input is read any more. What does not
depend on the first input (tables of angles, masks) is computed again in each block that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from fretsaw.ir import Graph, Node, TensorType, Value, evaluate, get_op
from fretsaw.ir.ops.cache import is_cache

State = tuple[Value, object]  # a handle and the layer that a node reads or changes behind it


@dataclass(frozen=True)
class Block:
    """A piece of a graph as a graph of its own: from ``cut`` (None: from the inputs) to its outputs."""

    graph: Graph
    cut: Value | None

    @property
    def name(self) -> str:
        """Where the block ends, for people: its last node's module and value."""
        out = self.graph.outputs[0]
        node = self.graph.producer(out)
        return f"%{out.name}" if node is None or not node.loc.module else f"%{out.name} ({node.loc.module})"

    def same(self, other: Block) -> bool:
        """Equal nodes on equal constants between equal ends."""
        mine, theirs = self.graph, other.graph
        if len(mine.nodes) != len(theirs.nodes) or (self.cut, mine.outputs) != (other.cut, theirs.outputs):
            return False
        return all(a is b or a == b for a, b in zip(mine.nodes, theirs.nodes, strict=True)) and (
            mine.consts.keys() == theirs.consts.keys()
            and all(c is theirs.consts[v] or c == theirs.consts[v] for v, c in mine.consts.items())
        )


def state_of(node: Node) -> Iterator[State]:
    """What a node with effects reads and changes. Of a cache without a layer it reads how long the sequences are, which
    no node of a step changes."""
    op = get_op(node.op)
    for slot in op.effects:
        handle = node.get(slot)
        if handle is None or (is_cache(handle.type) and "layer" not in op.attrs):
            continue
        yield handle, node.attr("layer") if "layer" in op.attrs else None


def cuts(graph: Graph) -> list[Value]:
    """Values at which ``graph`` can be cut, in order; graph outputs are none."""
    if not graph.inputs:
        return []
    end = _last_reads(graph)
    carrying: set[Value | State] = {graph.inputs[0]}
    open_until = end.get(graph.inputs[0], -1)  # furthest read of what carries data and was made before this node
    out: list[Value] = []
    for i, node in enumerate(graph.nodes):
        if not any(v in carrying for v in node.operands) and not any(s in carrying for s in state_of(node)):
            continue
        made: list[Value | State] = [*node.results, *state_of(node)]
        carrying.update(made)
        single = len(node.results) == 1 and node.out not in graph.output_set and end.get(node.out, -1) > i
        if single and open_until <= i and all(end.get(s, -1) <= i for s in state_of(node)):
            out.append(node.out)
        open_until = max([open_until, *(end.get(m, -1) for m in made)])
    return out


def _last_reads(graph: Graph) -> dict[Value | State, int]:
    end: dict[Value | State, int] = {}
    for i, node in enumerate(graph.nodes):
        end.update(dict.fromkeys(node.operands, i))
        end.update(dict.fromkeys(state_of(node), i))
    return end | dict.fromkeys(graph.outputs, len(graph.nodes))


def common_cuts(before: Graph, after: Graph, env_before: Mapping[str, int], env_after: Mapping[str, int]) -> list[str]:
    """Names of values at which both graphs can be cut: equal dtypes and numbers of elements, in the same order."""
    there = {v.name: (i, v) for i, v in enumerate(cuts(after))}
    out: list[str] = []
    last = -1
    for value in cuts(before):
        place, other = there.get(value.name, (-1, value))
        if place > last and _size(value, env_before) == _size(other, env_after):
            out.append(value.name)
            last = place
    return out


def _size(value: Value, env: Mapping[str, int]) -> tuple[str, int]:
    kind = value.type
    assert isinstance(kind, TensorType)
    return kind.dtype, evaluate(kind.numel, env)


def split(graph: Graph, names: list[str]) -> list[Block]:
    """``graph`` cut at the values called ``names``, one block more than there are names. Linear in the nodes."""
    by_name = {v.name: v for node in graph.nodes for v in node.results}
    ends = [by_name[name] for name in names]
    last_of: dict[State, int] = {}
    previous: dict[int, list[int]] = {}  # node -> earlier nodes whose effects it may see
    for i, node in enumerate(graph.nodes):
        for state in state_of(node):
            previous.setdefault(i, []).extend([last_of[state]] if state in last_of else [])
            last_of[state] = i
    place = {v: i for i, node in enumerate(graph.nodes) for v in node.results}
    out: list[Block] = []
    for start, end in zip([None, *ends], [*ends, None], strict=True):
        goal = graph.outputs if end is None else (end,)
        roots = [place[v] for v in goal if v in place]
        if end is None:  # effects that nothing reads belong to the last block
            floor = -1 if start is None else place[start]
            roots += [i for i in last_of.values() if i > floor]
        out.append(_block(graph, start, goal, roots, place, previous))
    return out


def _block(
    graph: Graph, start: Value | None, goal: tuple[Value, ...], roots: list[int], place: Mapping[Value, int],
    previous: Mapping[int, list[int]],
) -> Block:  # fmt: skip
    """What the ``roots`` need, back to ``start`` and the inputs of the graph."""
    wanted: set[int] = set()
    todo = list(roots)
    while todo:
        i = todo.pop()
        if i in wanted or (start is not None and i == place[start]):
            continue
        wanted.add(i)
        todo += [place[v] for v in graph.nodes[i].operands if v in place and v != start]
        todo += previous.get(i, [])
    nodes = tuple(graph.nodes[i] for i in sorted(wanted))
    read = {v for node in nodes for v in node.operands} | set(goal)
    inputs = (*((start,) if start is not None else ()), *(v for v in graph.inputs if v in read))
    consts = {v: c for v, c in graph.consts.items() if v in read}
    return Block(replace(graph, inputs=inputs, consts=consts, nodes=nodes, outputs=goal), start)
