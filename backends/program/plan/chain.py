"""Grow an elementwise chain from a kernel's result, so that it runs while the result is in registers.

%y = linear(%x, %w)
%z = silu(%y)            ==>     one kernel, epilogue add(silu(x0), x1), x1 = %r
%o = add(%z, %r)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fretsaw.backends.program.expr import BINARY, UNARY, Expr, LeafKind, const, leaf
from fretsaw.ir import Const, Graph, Node, TensorType, Value


@dataclass
class Chain:
    """An expression over accumulators and extra buffers.

    Args:
        accumulators: Values that the kernel itself makes; leaves 0, 1, ...
        extra: Buffers read besides, leaves after the accumulators, with their kinds.
    """

    graph: Graph
    accumulators: tuple[Value, ...]
    extra: list[Value] = field(default_factory=list)
    kinds: list[LeafKind] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    trees: dict[Value, Expr] = field(default_factory=dict)
    frontier: list[Value] = field(default_factory=list)  # values that later nodes still see

    def __post_init__(self) -> None:
        for i, value in enumerate(self.accumulators):
            self.trees[value] = leaf(i)
        self.frontier = list(self.accumulators)

    @property
    def result(self) -> Value:
        return self.nodes[-1].out if self.nodes else self.accumulators[0]

    @property
    def expr(self) -> Expr:
        return self.trees[self.result]

    def start_with_bias(self, bias: Value) -> None:
        """The kernel's own result plus a vector, before anything else. ``bias`` is a constant [N]."""
        self.extra.append(bias)
        self.kinds.append("col")
        self.trees[bias] = leaf(len(self.accumulators))
        (accumulator,) = self.accumulators
        self.trees[accumulator] = ("add", self.trees[accumulator], self.trees[bias])

    def grow(self, covered: set[int]) -> None:
        """Absorb readers as long as everything computed so far is read only inside the chain."""
        while (node := self._next(self.frontier, covered)) is not None:
            self.take(node)

    def take(self, node: Node) -> None:
        """Absorb ``node``, for which ``can_absorb`` holds."""
        self._absorb(node)
        self.frontier = [v for v in self.frontier if v not in node.operands] + [node.out]

    def _next(self, frontier: Sequence[Value], covered: set[int]) -> Node | None:
        """A reader whose absorption leaves no value of the frontier visible outside."""
        for value in frontier:
            uses = self.graph.uses(value)
            if not uses or value in self.graph.output_set or len({id(u.node) for u in uses}) != 1:
                continue
            node = uses[0].node
            if id(node) not in covered and self.can_absorb(node):
                return node
        return None

    def can_absorb(self, node: Node) -> bool:
        """The node is elementwise, known to the kernels, and its other operands are leaves."""
        if node.op not in UNARY | BINARY | {"clamp"} or node.out.tensor.dtype != "f32":
            return False
        shape = self.accumulators[0].tensor.shape
        if node.out.tensor.shape != shape:
            return False
        return all(v in self.trees or self._kind(v, shape) is not None for v in node.operands)

    def _kind(self, value: Value, shape: Sequence[object]) -> LeafKind | float | None:
        constant = self.graph.consts.get(value)
        if constant is not None:
            number = scalar_of(constant)
            if number is not None:
                return number
        kind = value.type
        if not isinstance(kind, TensorType) or kind.dtype != "f32":
            return None
        if kind.shape == tuple(shape):
            return "full"
        if constant is not None and kind.shape == (shape[-1],):
            return "col"
        if len(kind.shape) == len(shape) and kind.shape[-1] == 1 and kind.shape[:-1] == tuple(shape[:-1]):
            return "row"
        return None

    def _absorb(self, node: Node) -> None:
        args = tuple(self._tree(v) for v in node.operands)
        if node.op == "gelu":
            name = "gelu_tanh" if node.attr("approximate") == "tanh" else "gelu"
            tree: Expr = (name, *args)
        elif node.op == "clamp":
            tree = args[0]
            if node.attr("max") is not None:
                tree = ("minimum", tree, const(node.float_attr("max")))
            if node.attr("min") is not None:
                tree = ("maximum", tree, const(node.float_attr("min")))
        else:
            tree = (node.op, *args)
        self.trees[node.out] = tree
        self.nodes.append(node)

    def _tree(self, value: Value) -> Expr:
        if value in self.trees:
            return self.trees[value]
        kind = self._kind(value, self.accumulators[0].tensor.shape)
        if isinstance(kind, float):
            return const(kind)
        assert kind is not None
        self.extra.append(value)
        self.kinds.append(kind)
        self.trees[value] = leaf(len(self.accumulators) + len(self.extra) - 1)
        return self.trees[value]


def scalar_of(constant: Const) -> float | None:
    """The number a small constant holds everywhere, else None. Large constants are not loaded."""
    if int(np.prod([int(d) for d in constant.type.shape if isinstance(d, int)], dtype=np.int64)) != 1:
        return None
    return float(constant.load().reshape(()))
