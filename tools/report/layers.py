"""A graph cut into blocks: layers by their number in the module path, and whatever stands outside of them.

A layer's number is the first number in a module path: ``model.layers.7.mlp.experts.3`` is layer 7 of ``model.layers``.
Layers whose nodes do the same are alike and make one group, also where others stand between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from fretsaw.ir import Graph, Node, Value

Signature = tuple[object, ...]
ATTRS_OF_PLACE = frozenset({"layer"})  # says where a node is, not what it does


@dataclass(frozen=True)
class Block:
    """Nodes of one layer, or of one module outside of the layers.

    Args:
        stack: Module path of the list that the layer is in, or of the module itself.
        number: Of the layer in its stack; None outside of layers.
        nodes: In the order of the program.
    """

    stack: str
    number: int | None
    nodes: tuple[Node, ...]

    @property
    def label(self) -> str:
        """``layer 7``, ``encoder.layers.7`` where the graph has several stacks, ``lm_head``."""
        return self.stack or "(no module)" if self.number is None else f"layer {self.number}"


@dataclass(frozen=True)
class Group:
    """Blocks that are alike; ``blocks[0]`` stands for all of them."""

    blocks: tuple[Block, ...]
    several_stacks: bool = field(default=False)

    @property
    def block(self) -> Block:
        return self.blocks[0]

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(b.number for b in self.blocks if b.number is not None)

    @cached_property
    def label(self) -> str:
        """``layers 0-28, 30``, ``layer 29``, ``lm_head``; the stack is named where the graph has several."""
        if self.block.number is None:
            return self.block.label
        word = f"{self.block.stack} " if self.several_stacks else "layer" if len(self.blocks) == 1 else "layers"
        return f"{word.strip()} {ranges(self.numbers)}"


def layer_of(module: str) -> tuple[str, int] | None:
    """(stack, number) of a module path, or None where no part of it is a number.

    >>> layer_of("model.layers.7.mlp.experts.3")
    ('model.layers', 7)
    """
    parts = module.split(".")
    for i, part in enumerate(parts):
        if i and part.isascii() and part.isdigit() and len(part) <= 6:
            return ".".join(parts[:i]), int(part)
    return None


def blocks_of(graph: Graph) -> tuple[Block, ...]:
    """All nodes in blocks, in the order in which the program first enters each. A node without a module path belongs
    to the block that made its first operand."""
    found: dict[tuple[str, int | None], list[Node]] = {}
    home: dict[Value, tuple[str, int | None]] = {}
    for node in graph.nodes:
        key: tuple[str, int | None]
        if node.loc.module:
            key = layer_of(node.loc.module) or (node.loc.module, None)
        else:
            key = next((home[v] for v in node.operands if v in home), ("", None))
        found.setdefault(key, []).append(node)
        home.update((value, key) for value in node.results)
    return tuple(Block(stack, number, tuple(nodes)) for (stack, number), nodes in found.items())


def groups_of(graph: Graph, *, rules: bool = False) -> tuple[Group, ...]:
    """Blocks with alike layers put together, in program order of the first of each group.

    Args:
        rules: Layers that different rules touched are not alike.
    """
    blocks = blocks_of(graph)
    stacks = len({b.stack for b in blocks if b.number is not None}) > 1
    groups: dict[Signature, list[Block]] = {}
    for i, block in enumerate(blocks):
        own = ("block", i) if block.number is None else (block.stack, signature(graph, block, rules=rules))
        groups.setdefault(own, []).append(block)
    return tuple(Group(tuple(sorted(members, key=lambda b: b.number or 0)), stacks) for members in groups.values())


def signature(graph: Graph, block: Block, *, rules: bool = False) -> Signature:
    """What the block does: ops, attributes, types and wiring, without names. Equal for alike layers.

    A value from outside counts by its type and by the order in which outside values are first read.
    """
    known: dict[Value, object] = {}
    parts: list[object] = []
    for i, node in enumerate(block.nodes):
        operands = tuple(known.setdefault(v, _outside(graph, v, len(known))) for v in node.operands)
        attrs = tuple((k, repr(v)) for k, v in node.attrs if k not in ATTRS_OF_PLACE)
        types = tuple(str(v.type) for v in node.results)
        parts.append((node.op, operands, attrs, types, node.loc.rules if rules else ()))
        known.update((v, (i, j)) for j, v in enumerate(node.results))
    return tuple(parts)


def _outside(graph: Graph, value: Value, order: int) -> tuple[str, int, str]:
    kind = "const" if graph.is_const(value) else "value"
    return kind, order, str(value.type)


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as ranges.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    runs: list[list[int]] = []
    for n in sorted(set(numbers)):
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def folded_paths(paths: Sequence[str]) -> Mapping[str, int]:
    """Module paths with layer numbers folded, and how many each stands for, in order of first sight.

    >>> folded_paths(["m.layers.0.mlp", "m.layers.1.mlp", "lm_head"])
    {'m.layers.{0-1}.mlp': 2, 'lm_head': 1}
    """
    numbers: dict[tuple[str, str | None], list[int]] = {}  # (stack, rest after the number) or (path, None)
    for path in paths:
        layer = layer_of(path)
        if layer is None:
            numbers.setdefault((path, None), []).append(0)
        else:
            stack, number = layer
            numbers.setdefault((stack, path[len(stack) + 1 :].partition(".")[2]), []).append(number)
    return {_folded(head, tail, found): len(found) for (head, tail), found in numbers.items()}


def _folded(head: str, tail: str | None, found: Sequence[int]) -> str:
    if tail is None:
        return head
    number = f"{{{ranges(found)}}}" if len(set(found)) > 1 else str(found[0])
    return ".".join(filter(None, (head, number, tail)))
