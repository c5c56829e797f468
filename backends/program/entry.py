"""The step program as the artifact carries it (docs/program.md): arrays, slots of the workspace, calls of kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fretsaw.ir.dims import DimLike, Shape, evaluate, product

ArrayType = Literal["f32", "f16", "i32", "i64", "i8"]
ARRAY_BYTES: Mapping[ArrayType, int] = {"f32": 4, "f16": 2, "i32": 4, "i64": 8, "i8": 1}
SLOT_ALIGNMENT = 64  # bytes, of every slot in the workspace


class Argument(NamedTuple):
    """What a call hands over: ``value`` and ``tensor`` by index, ``cache`` by name, ``int`` as it is."""

    kind: Literal["value", "tensor", "cache", "int"]
    what: int | str


@dataclass(frozen=True)
class Array:
    """A value of the program: an input (neither slot nor of), in a slot, or a reshape of another value.

    Args:
        slot: Index of the slot that holds it.
        of: Index of the value that it is a reshape of.
    """

    name: str
    dtype: ArrayType
    shape: Shape
    slot: int | None = None
    of: int | None = None

    @property
    def elements(self) -> DimLike:
        """Number of elements, a polynomial."""
        return product(self.shape)

    @property
    def nbytes(self) -> DimLike:
        """Size in bytes, a polynomial."""
        return self.elements * ARRAY_BYTES[self.dtype]


@dataclass(frozen=True)
class Call:
    """One launch of one kernel.

    Args:
        kernel: Name of the function in the code section.
        args: In the kernel's order.
        made: How many of the last arguments the call makes.
    """

    kernel: str
    args: tuple[Argument, ...]
    made: int

    @property
    def reads(self) -> list[int]:
        """Indices of the values that it reads."""
        return [
            a.what for a in self.args[: len(self.args) - self.made] if a.kind == "value" and isinstance(a.what, int)
        ]

    @property
    def makes(self) -> list[int]:
        """Indices of the values that it makes."""
        return [a.what for a in self.args[len(self.args) - self.made :] if isinstance(a.what, int)]


@dataclass(frozen=True)
class Entry:
    """One function of the program."""

    name: str
    symbols: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    slots: tuple[DimLike, ...]
    values: tuple[Array, ...]
    calls: tuple[Call, ...]

    def root(self, value: int) -> int:
        """The value whose bytes ``value`` has: itself, or what it is a reshape of."""
        of = self.values[value].of
        return value if of is None else of

    def workspace(self, env: Mapping[str, int]) -> int:
        """Bytes of all slots, each aligned, for one choice of the symbols."""
        return sum(-(-evaluate(s, env) // SLOT_ALIGNMENT) * SLOT_ALIGNMENT for s in self.slots)


@dataclass(frozen=True)
class StepProgram:
    """All entries; the first is the one that every step can be run by."""

    entries: tuple[Entry, ...]

    def entry(self, name: str) -> Entry:
        """The entry of a name.

        Raises:
            KeyError: there is none.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)
