"""Declaring ops. One declaration holds operands, attributes, shape rule, effects, reference and a text example.

Builder, verifier, printer, parser, interpreter and documentation all derive from it. No reference, no op.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from fretsaw.ir.dims import Dim
from fretsaw.ir.types import TensorType, ValueType

# Attributes are plain data. A shape attribute is a tuple of ints and Dims; a dtype is its name.
Attr = bool | int | float | str | Dim | tuple["Attr", ...] | None
Array = np.ndarray
ShapeRule = Callable[[Sequence[ValueType], Mapping[str, Attr]], Sequence[ValueType]]
Reference = Callable[..., Sequence[Array]]
Flops = Callable[[Sequence[ValueType], Sequence[ValueType], Mapping[str, Attr]], int]


class ShapeError(Exception):
    """A shape rule refuses its operands. ``slot`` or ``attr`` names the culprit where there is one."""

    def __init__(self, message: str, slot: str | int | None = None, attr: str | None = None) -> None:
        super().__init__(message)
        self.slot = slot
        self.attr = attr


@dataclass(frozen=True)
class AttrSpec:
    """Type and default of an attribute. ``required`` ones have no default."""

    kind: type | tuple[type, ...]
    default: Attr = None
    required: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpDef:
    """One op of the catalogue.

    Args:
        slots: Operand names in order; a trailing ``?`` marks an optional one, ``*`` a variadic last one.
        shape_rule: Types of the results from types of the operands; raises ShapeError.
        reference: NumPy meaning, ``reference(arrays, attrs) -> arrays``; arrays are in ``numpy_dtype``.
        effects: Slots of handles that the op changes; an op with effects is never dropped, merged or reordered.
        elementwise: The op maps each output element from the operands' elements at the same (broadcast) index.
        flops: Floating point operations from the types of operands and results, with fixed shapes, and attributes; a
            multiply-add is two, an elementwise op by default one per element of its result.
        example: One line of IR text, checked by the tests.
        weights: Slots of matrices of weights, which may be kept in a narrower storage format.
    """

    name: str
    slots: tuple[str, ...]
    attrs: Mapping[str, AttrSpec]
    shape_rule: ShapeRule
    reference: Reference
    doc: str
    example: str
    effects: tuple[str, ...] = ()
    elementwise: bool = False
    flops: Flops | None = field(default=None)
    weights: tuple[str, ...] = ()

    @property
    def required_slots(self) -> int:
        return sum(not s.endswith(("?", "*")) for s in self.slots)

    @property
    def variadic(self) -> bool:
        return bool(self.slots) and self.slots[-1].endswith("*")

    def slot_names(self, count: int) -> tuple[str, ...]:
        """Names of the first ``count`` operands; a variadic slot ``xs*`` gives xs0, xs1, ..."""
        fixed = [s.rstrip("?") for s in self.slots if not s.endswith("*")]
        if self.variadic:
            base = self.slots[-1].rstrip("*")
            fixed += [f"{base}{i}" for i in range(max(0, count - len(fixed)))]
        return tuple(fixed[:count])


def sizes(value: ValueType) -> tuple[int, ...]:
    """The shape of a tensor whose dims are all fixed, as the functions behind ``flops`` get them."""
    assert isinstance(value, TensorType)
    return tuple(d for d in value.shape if isinstance(d, int))


def elements(value: ValueType) -> int:
    """Number of elements of a tensor whose dims are all fixed."""
    return prod(sizes(value))


def one_per_result(operands: Sequence[ValueType], results: Sequence[ValueType], attrs: Mapping[str, Attr]) -> int:
    """One operation per element of the results."""
    return sum(map(elements, results))


def per_operand(count: int) -> Flops:
    """``count`` operations per element of the first operand."""
    return lambda operands, results, attrs: count * elements(operands[0])


def no_flops(operands: Sequence[ValueType], results: Sequence[ValueType], attrs: Mapping[str, Attr]) -> int:
    """The op moves elements and computes none."""
    return 0


_CATALOGUE: dict[str, OpDef] = {}


def define_op(
    name: str,
    slots: str,
    *,
    shape: ShapeRule,
    reference: Reference,
    doc: str,
    example: str,
    attrs: Mapping[str, AttrSpec] | None = None,
    effects: tuple[str, ...] = (),
    elementwise: bool = False,
    flops: Flops | None = None,
    weights: tuple[str, ...] = (),
) -> OpDef:
    """Add an op to the catalogue. ``slots`` is a space-separated list, see :class:`OpDef`."""
    if name in _CATALOGUE:
        raise ValueError(f"op {name} is declared twice")
    flops = one_per_result if flops is None and elementwise else flops
    op = OpDef(
        name,
        tuple(slots.split()),
        dict(attrs or {}),
        shape,
        reference,
        doc,
        example,
        effects,
        elementwise,
        flops,
        weights,
    )
    _CATALOGUE[name] = op
    return op


def get_op(name: str) -> OpDef:
    """The declaration of ``name``.

    Raises:
        KeyError: no such op.
    """
    _load_catalogue()
    return _CATALOGUE[name]


def catalogue() -> Mapping[str, OpDef]:
    """All ops by name."""
    _load_catalogue()
    return _CATALOGUE


def has_op(name: str) -> bool:
    return name in catalogue()


def _load_catalogue() -> None:
    import fretsaw.ir.ops  # noqa: F401  declares the ops on first use


def tensor(value: ValueType, slot: str) -> TensorType:
    """``value`` as a tensor type, or a ShapeError naming ``slot``."""
    if not isinstance(value, TensorType):
        raise ShapeError(f"{slot} must be a tensor, is {value}", slot)
    return value
