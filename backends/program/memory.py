"""The static memory plan of an entry: which values share bytes of the workspace.

    value      first launch ... last launch      slot          slots in the order of launches, the one that fits best:
    h          0 ................. 4             0             free at that time, least growth, then least waste
    qkv            1 ... 2                       1
    o                  2 ... 3                   2
    mlp                    3 ... 4               1

Sizes are polynomials in the step's symbols. Where one dominates the other coefficient by coefficient the smaller fits
into the larger for every step; otherwise the slot grows to the larger coefficient of each monomial. Growth is weighed
at one typical step, so a slot is never grown where a new one is as cheap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fretsaw.ir.dims import Dim, DimLike, evaluate

# A step to weigh sizes at: a chunk of a prompt. KB is a long context: bytes over pairs of blocks are worth saving.
TYPICAL: Mapping[str, int] = {"T": 512, "B": 2, "R": 2, "QB": 12, "KB": 64, "M": 64}


@dataclass(frozen=True)
class Lifetime:
    """A value's size in bytes, and the first and last launch between which it must keep its bytes, both included."""

    nbytes: DimLike
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPlan:
    """Sizes of the slots in bytes, and the slot of each value."""

    slots: tuple[DimLike, ...]
    slot_of: tuple[int, ...]


def plan_memory(values: Sequence[Lifetime]) -> MemoryPlan:
    """Slots for ``values``. Two that are alive in one launch get different ones.

    Args:
        values: In the order in which they are made.
    """
    slots: list[DimLike] = []
    free_after: list[int] = []
    slot_of: list[int] = [-1] * len(values)
    for i in sorted(range(len(values)), key=lambda i: values[i].first):
        value = values[i]
        size = weight(value.nbytes)
        best: tuple[int, int, int] | None = None
        for slot, nbytes in enumerate(slots):
            if free_after[slot] >= value.first:
                continue
            growth = weight(largest(nbytes, value.nbytes)) - weight(nbytes)
            if growth < size or size == 0:
                rank = (growth, weight(nbytes), slot)
                best = rank if best is None else min(best, rank)
        if best is None:
            slots.append(value.nbytes)
            free_after.append(value.last)
            slot_of[i] = len(slots) - 1
        else:
            slot = best[2]
            slots[slot], free_after[slot], slot_of[i] = largest(slots[slot], value.nbytes), value.last, slot
    return MemoryPlan(tuple(slots), tuple(slot_of))


def weight(nbytes: DimLike) -> int:
    """Bytes at the typical step."""
    if isinstance(nbytes, int):
        return nbytes
    return evaluate(nbytes, {name: TYPICAL.get(name, TYPICAL["T"]) for name in nbytes.symbols})


def largest(a: DimLike, b: DimLike) -> DimLike:
    """The larger coefficient of each monomial: at least both, for all values of the symbols."""
    terms = dict(coefficients(a))
    for monomial, c in coefficients(b).items():
        terms[monomial] = max(terms.get(monomial, 0), c)
    return polynomial(terms)


def dominates(a: DimLike, b: DimLike) -> bool:
    """``a`` is at least ``b`` coefficient by coefficient, so for all values of the symbols."""
    terms = coefficients(a)
    return all(terms.get(monomial, 0) >= c for monomial, c in coefficients(b).items())


def coefficients(dim: DimLike) -> dict[tuple[str, ...], int]:
    """Coefficients by monomial, the constant under ()."""
    return dict(dim.terms) if isinstance(dim, Dim) else ({(): dim} if dim else {})


def polynomial(terms: Mapping[tuple[str, ...], int]) -> DimLike:
    """The size with these coefficients."""
    total: DimLike = 0
    for monomial, c in terms.items():
        total = total + (Dim(((monomial, c),)) if monomial and c else c)
    return total
