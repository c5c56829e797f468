"""Kernel specs of a mixture of experts, as the plan names them. Argument order as in ``layers``."""

from __future__ import annotations

from dataclasses import dataclass

from fretsaw.backends.program.expr import Expr as Tree
from fretsaw.backends.program.expr import LeafKind
from fretsaw.backends.program.specs.base import Spec


@dataclass(frozen=True)
class RouteSpec(Spec):
    """A choice of ``slots`` of ``experts`` per token. Input logits [T, E]; outputs index i32[T, k] and weight [T, k].

    Args:
        before: Softmax over all experts; otherwise over the chosen ones.
        normalize: With ``before``, divide the chosen weights by their sum.
    """

    experts: int
    slots: int
    before: bool = True
    normalize: bool = False


@dataclass(frozen=True)
class SortSpec(Spec):
    """Input index i32[T, k]; outputs offsets i32[E + 1] and order i32[T*k]."""

    experts: int
    slots: int


@dataclass(frozen=True)
class GroupedSpec(Spec):
    """Inputs x, offsets, order, panels (or members, and panels for each class), biases where asked; output [T*k, N].

    With ``gather`` (the router's k) x is [T, K] and the output in the order of experts; without, x is in that
    order and the output in the order of tokens. ``glu`` names an activation, or ``clamped_swiglu``.

    Args:
        weight: Storage of all experts, where it is one.
        classes: Otherwise each storage in codes, and how many experts have it.
    """

    experts: int
    n: int
    k: int
    weight: str
    gather: int = 0
    glu: str = ""
    limit: float = 0.0
    alpha: float = 0.0
    bias: bool = False
    classes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class CombineSpec(Spec):
    """Inputs y [T*k, D], weight [T, k], then the tree's leaves from 1 on (leaf 0 is the sum); output [T, D]."""

    width: int
    slots: int
    tree: Tree = ("leaf", 0)
    kinds: tuple[LeafKind, ...] = ()
