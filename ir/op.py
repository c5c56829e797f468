"""Declaring ops. One declaration holds operands, attributes, shape rule, traits, reference and a text example.

Builder, verifier, printer, parser, interpreter and documentation all derive from it. No reference, no op.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from fretsaw.ir.dims import Dim
from fretsaw.ir.traits import Access, FullRows, Kind, Legal, Probe, Rows, promises_nothing
from fretsaw.ir.types import TensorType, ValueType

# Attributes are plain data. A shape attribute is a tuple of ints and Dims; a dtype is its name.
Attr = bool | int | float | str | Dim | tuple["Attr", ...] | None
Array = np.ndarray
ShapeRule = Callable[[Sequence[ValueType], Mapping[str, Attr]], Sequence[ValueType]]
Reference = Callable[..., Sequence[Array]]
Flops = Callable[[Sequence[ValueType], Sequence[ValueType], Mapping[str, Attr]], int]
# Bytes from types of operands and results, attributes, and bytes of a float.
Scratch = Callable[[Sequence[ValueType], Sequence[ValueType], Mapping[str, Attr], int], int]


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
        reads: Handles, or parts of them, that the op looks at. Equal reads with no write between them may be merged.
        writes: Those that it changes; an op that writes is never dropped, merged, or moved past another access.
        legal: The phases in which it may stand.
        kind: What it is made for.
        rows: How it treats the axes in front.
        view: Every element of the result is one of the first operand, so that NumPy may answer without a copy.
        indices: Slots that take any integer type, each with the slot whose rows the integers name; empty: none.
        full_rows: Of an op that makes a mask over key blocks: for which rows the mask is known to hold everything.
        outside: Slot of a mask over key blocks that holds none of the keys that the op lists; empty: no promise.
        probe: What it leaves out of steps that decode.
        elementwise: The op maps each output element from the operands' elements at the same (broadcast) index.
        flops: Floating point operations from the types of operands and results, with fixed shapes, and attributes; a
            multiply-add is two, an elementwise op by default one per element of its result.
        scratch: Bytes that the reference holds beside copies of operands and results.
        example: One line of IR text, checked by the tests.
    """

    name: str
    slots: tuple[str, ...]
    attrs: Mapping[str, AttrSpec]
    shape_rule: ShapeRule
    reference: Reference
    doc: str
    example: str
    reads: tuple[Access, ...] = ()
    writes: tuple[Access, ...] = ()
    legal: Legal = Legal()
    kind: Kind = "arithmetic"
    rows: Rows = ""
    view: bool = False
    indices: Mapping[str, str] = field(default_factory=dict)
    full_rows: FullRows = promises_nothing
    outside: str = ""
    probe: Probe | None = None
    elementwise: bool = False
    flops: Flops | None = field(default=None)
    scratch: Scratch | None = None

    @property
    def handles(self) -> frozenset[str]:
        """Slots whose handles the op reads or writes."""
        return frozenset(access.slot for access in (*self.reads, *self.writes))

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


_CATALOGUE: dict[str, OpDef] = {}  # filled by fretsaw.ir.ops, which fretsaw.ir imports


def define_op(
    name: str,
    slots: str,
    *,
    shape: ShapeRule,
    reference: Reference,
    doc: str,
    example: str,
    attrs: Mapping[str, AttrSpec] | None = None,
    reads: tuple[Access, ...] = (),
    writes: tuple[Access, ...] = (),
    legal: Legal = Legal(),
    kind: Kind = "arithmetic",
    rows: Rows = "",
    view: bool = False,
    indices: Mapping[str, str] | None = None,
    full_rows: FullRows = promises_nothing,
    outside: str = "",
    probe: Probe | None = None,
    elementwise: bool = False,
    flops: Flops | None = None,
    scratch: Scratch | None = None,
) -> OpDef:
    """Add an op to the catalogue. ``slots`` is a space-separated list, see :class:`OpDef`."""
    if name in _CATALOGUE:
        raise ValueError(f"op {name} is declared twice")
    flops = one_per_result if flops is None and elementwise else flops
    op = OpDef(
        name, tuple(slots.split()), dict(attrs or {}), shape, reference, doc, example, reads, writes, legal, kind, rows,
        view, dict(indices or {}), full_rows, outside, probe, elementwise, flops, scratch,
    )  # fmt: skip
    _CATALOGUE[name] = op
    return op


def get_op(name: str) -> OpDef:
    """The declaration of ``name``.

    Raises:
        KeyError: no such op.
    """
    return _CATALOGUE[name]


def catalogue() -> Mapping[str, OpDef]:
    """All ops by name."""
    return _CATALOGUE


def has_op(name: str) -> bool:
    return name in catalogue()


def tensor(value: ValueType, slot: str) -> TensorType:
    """``value`` as a tensor type, or a ShapeError naming ``slot``."""
    if not isinstance(value, TensorType):
        raise ShapeError(f"{slot} must be a tensor, is {value}", slot)
    return value
