"""Kernel specs of a mixture of experts, as the plan names them. Argument order as in ``specs``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.tvm import lower_expr
from fretsaw.backends.tvm.expr import Expr as Tree
from fretsaw.backends.tvm.expr import LeafKind
from fretsaw.backends.tvm.kernels import moe as moe_kernel
from fretsaw.backends.tvm.kernels import router as router_kernel
from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, lanes_of, load, splat
from fretsaw.backends.tvm.kernels.epilogue import Glu
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.specs import Spec, grouped_storage, weight_storage


@dataclass(frozen=True)
class RouteSpec(Spec):
    """Input logits [T, E]; outputs index i32[T, k] and weight [T, k]."""

    experts: int
    slots: int
    before: bool
    normalize: bool

    def build(self, isa: Isa) -> tirx.PrimFunc:
        return router_kernel.route(
            router_kernel.RouteSpec(self.experts, self.slots, isa, self.before, self.normalize, self.name)
        )


@dataclass(frozen=True)
class SortSpec(Spec):
    """Input index i32[T, k]; outputs offsets i32[E + 1] and order i32[T*k]."""

    experts: int
    slots: int

    def build(self, isa: Isa) -> tirx.PrimFunc:
        return router_kernel.sort_by_expert(self.experts, self.slots, self.name)


@dataclass(frozen=True)
class GroupedSpec(Spec):
    """Inputs x, offsets, order, panels (or members, and panels for each class), biases where asked; output [T*k, N].

    Args:
        weight: Storage of all experts, where it is one.
        classes: Otherwise each storage in codes, and how many experts have it.

    With ``gather`` (the router's k) x is [T, K] and the output in the order of experts; without, x is in that
    order and the output in the order of tokens. ``glu`` names an activation, or ``clamped_swiglu``.
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

    def build(self, isa: Isa) -> tirx.PrimFunc:
        glu = Glu(self.glu) if self.glu else None
        if self.glu == "clamped_swiglu":
            glu = Glu(limit=self.limit, alpha=self.alpha)
        classes = tuple((grouped_storage(name), size) for name, size in self.classes)
        return moe_kernel.grouped_gemm(
            moe_kernel.GroupedSpec(
                self.experts, self.n, self.k, isa, "" if classes else weight_storage(self.weight), classes,
                self.gather, glu, self.bias, self.name,
            )
        )  # fmt: skip


@dataclass(frozen=True)
class CombineSpec(Spec):
    """Inputs y [T*k, D], weight [T, k], then the tree's leaves from 1 on (leaf 0 is the sum); output [T, D]."""

    width: int
    slots: int
    tree: Tree = ("leaf", 0)
    kinds: tuple[LeafKind, ...] = ()

    def build(self, isa: Isa) -> tirx.PrimFunc:
        shapes: dict[LeafKind, tuple[int | None, ...]] = {
            "full": (None, self.width),
            "col": (self.width,),
            "row": (None, 1),
        }
        extra = tuple((f"x{i + 1}", shapes[kind]) for i, kind in enumerate(self.kinds))

        def leaf(i: int, row: Expr, col: Expr, buffers: Sequence[Buffer], lanes: int) -> Expr:
            kind, buffer = self.kinds[i], buffers[i]
            if kind == "row":
                return splat(load(buffer, [row, 0]), lanes)
            return load(buffer, [col] if kind == "col" else [row, col], lanes)

        def finish(value: Expr, row: Expr, col: Expr, buffers: Sequence[Buffer]) -> Expr:
            lanes = lanes_of(value)
            return lower_expr.lower(
                self.tree, lambda i: value if i == 0 else leaf(i - 1, row, col, buffers, lanes), lanes
            )

        plain = self.tree == ("leaf", 0)
        return moe_kernel.combine(
            moe_kernel.CombineSpec(self.width, self.slots, isa, None if plain else finish, extra, self.name)
        )
