"""Values, nodes and graphs. All frozen: a rewrite makes a new graph, so before and after can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from fretsaw.ir import attrs
from fretsaw.ir.consts import Const
from fretsaw.ir.dims import DimLike
from fretsaw.ir.op import Attr, get_op
from fretsaw.ir.types import TensorType, ValueType


@dataclass(frozen=True)
class Value:
    """A named SSA value. Names are unique in a graph."""

    name: str
    type: ValueType

    def __hash__(self) -> int:  # names are unique in a graph, and hashing a shape costs
        return hash(self.name)

    @property
    def tensor(self) -> TensorType:
        """The type, for values that are tensors.

        Raises:
            TypeError: the value is a handle.
        """
        if not isinstance(self.type, TensorType):
            raise TypeError(f"%{self.name} is {self.type}, not a tensor")
        return self.type

    def __str__(self) -> str:
        return f"%{self.name}: {self.type}"


@dataclass(frozen=True)
class Loc:
    """Where a node comes from: module path in the checkpoint, source line, and the rules that touched it."""

    module: str = ""
    source: str = ""
    rules: tuple[str, ...] = ()

    def touched(self, rule: str) -> Loc:
        return self if rule in self.rules else replace(self, rules=(*self.rules, rule))


@dataclass(frozen=True)
class Node:
    """One application of a catalogue op."""

    op: str
    operands: tuple[Value, ...]
    attrs: tuple[tuple[str, Attr], ...]
    results: tuple[Value, ...]
    loc: Loc = field(default=Loc(), compare=False)

    @property
    def out(self) -> Value:
        return self.results[0]

    def __getitem__(self, slot: str) -> Value:
        """The operand in ``slot``."""
        names = get_op(self.op).slot_names(len(self.operands))
        return self.operands[names.index(slot)]

    def get(self, slot: str) -> Value | None:
        """The operand in ``slot``, or None when an optional operand is absent."""
        names = get_op(self.op).slot_names(len(self.operands))
        return self.operands[names.index(slot)] if slot in names else None

    @cached_property
    def _attrs(self) -> dict[str, Attr]:
        return dict(self.attrs)

    def attr(self, name: str) -> Attr:
        """The attribute's value, or its declared default."""
        return self._attrs[name] if name in self._attrs else get_op(self.op).attrs[name].default

    def int_attr(self, name: str) -> int:
        """An attribute that the op declares as an integer, or its default; the others likewise."""
        return attrs.int_of({name: self.attr(name)}, name)

    def float_attr(self, name: str) -> float:
        return attrs.float_of({name: self.attr(name)}, name)

    def str_attr(self, name: str) -> str:
        return attrs.str_of({name: self.attr(name)}, name)

    def ints_attr(self, name: str) -> tuple[int, ...]:
        """Integers, such as one number a head or a permutation; empty where the attribute is none."""
        return attrs.ints_of({name: self.attr(name)}, name)

    def dim_attr(self, name: str) -> DimLike:
        return attrs.dim_of({name: self.attr(name)}, name)

    def shape_attr(self, name: str) -> tuple[DimLike, ...]:
        return attrs.shape_of({name: self.attr(name)}, name)


@dataclass(frozen=True)
class Use:
    """Node ``node`` reads a value as its operand number ``index``, named ``slot``."""

    node: Node
    index: int

    @property
    def slot(self) -> str:
        return get_op(self.node.op).slot_names(len(self.node.operands))[self.index]


@dataclass(frozen=True)
class Graph:
    """A program: inputs and constants, nodes in SSA order, outputs.

    Args:
        dims: For each symbol its inclusive range (low, high).
        phase: Name of the last phase spec this graph was verified against.
    """

    name: str
    inputs: tuple[Value, ...]
    consts: Mapping[Value, Const]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    dims: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    phase: str = "captured"

    @cached_property
    def _uses(self) -> dict[Value, list[Use]]:
        index: dict[Value, list[Use]] = {}
        for node in self.nodes:
            for i, value in enumerate(node.operands):
                index.setdefault(value, []).append(Use(node, i))
        return index

    @cached_property
    def _producers(self) -> dict[Value, Node]:
        return {value: node for node in self.nodes for value in node.results}

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {id(node): i for i, node in enumerate(self.nodes)}

    def position(self, node: Node) -> int:
        """Index of ``node`` (this very object) in the order of the program."""
        return self._positions[id(node)]

    @cached_property
    def output_set(self) -> frozenset[Value]:
        return frozenset(self.outputs)

    def uses(self, value: Value) -> Sequence[Use]:
        """Every read of ``value`` by a node, in node order (graph outputs are not uses)."""
        return self._uses.get(value, ())

    def sole_use(self, value: Value) -> Use | None:
        """The only read of ``value`` when there is one and it is no graph output."""
        uses = self.uses(value)
        return uses[0] if len(uses) == 1 and value not in self.output_set else None

    def producer(self, value: Value) -> Node | None:
        """The node that makes ``value``; None for inputs and constants."""
        return self._producers.get(value)

    def const(self, value: Value) -> np.ndarray | None:
        """The array of a constant, or None when ``value`` is computed. Loads it: use for small ones."""
        found = self.consts.get(value)
        return None if found is None else found.load()

    def is_const(self, value: Value) -> bool:
        return value in self.consts

    def values(self) -> Iterator[Value]:
        """Every value: inputs, constants, results."""
        yield from self.inputs
        yield from self.consts
        for node in self.nodes:
            yield from node.results

    def count(self, op: str) -> int:
        return sum(node.op == op for node in self.nodes)
