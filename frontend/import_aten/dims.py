"""Sizes of traced tensors as dims of the IR: the tracer's symbols become ``B`` and ``S``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy  # type: ignore[import-untyped]
import torch
from torch import fx

from fretsaw.ir import DimLike, Shape, sym
from fretsaw.ir.errors import CaptureError


class Symbols:
    """Translates symbolic sizes.

    Args:
        names: The tracer's symbols and the names they get.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = dict(names)

    @staticmethod
    def of_input(shape: Sequence[int | torch.SymInt], names: Sequence[str]) -> Symbols:
        """Name the symbols in the shape of an input; fixed sizes get none."""
        found = {str(d.node.expr): n for d, n in zip(shape, names, strict=True) if isinstance(d, torch.SymInt)}
        return Symbols(found)

    def dim(self, size: int | torch.SymInt) -> DimLike:
        """A size as a dim.

        Raises:
            CaptureError: the size is no polynomial in the inputs' sizes.
        """
        return self._convert(size.node.expr) if isinstance(size, torch.SymInt) else int(size)

    def shape(self, sizes: Sequence[int | torch.SymInt]) -> Shape:
        return tuple(self.dim(s) for s in sizes)

    def resolve(self, argument: object) -> object:
        """An argument of an fx node with symbolic sizes replaced by dims, in lists too."""
        if isinstance(argument, fx.Node) and isinstance(argument.meta.get("val"), (torch.SymInt, int)):
            return self.dim(argument.meta["val"])
        if isinstance(argument, torch.SymInt):
            return self.dim(argument)
        if isinstance(argument, (list, tuple)):
            return [self.resolve(a) for a in argument]
        return argument

    def _convert(self, expr: sympy.Expr) -> DimLike:
        if expr.is_Integer:
            return int(expr)
        if expr.is_Symbol and str(expr) in self._names:
            return sym(self._names[str(expr)])
        if isinstance(expr, sympy.Add):
            total: DimLike = 0
            for term in expr.args:
                total = total + self._convert(term)
            return total
        if isinstance(expr, sympy.Mul):
            product: DimLike = 1
            for factor in expr.args:
                product = product * self._convert(factor)
            return product
        if isinstance(expr, sympy.Pow) and expr.exp.is_Integer and expr.exp > 0:
            power: DimLike = 1
            for _ in range(int(expr.exp)):
                power = power * self._convert(expr.base)
            return power
        raise CaptureError(f"the size {expr} is not a polynomial in batch and sequence length")
