"""The static memory plan of an entry: which values share bytes of the workspace.

    launch    0    1    2    3    4
    h         @0 ----------------           each value takes the slot that fits it best: free for its lifetime,
    qkv            @1 --                    least growth, then least waste
    o                   @2 --
    mlp                      @1 --

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

    Neither of two orders is the better one for every model, so both are tried: as values are made, and largest first.
    """
    made = sorted(range(len(values)), key=lambda i: values[i].first)
    large = sorted(made, key=lambda i: -weight(values[i].nbytes))
    return min((_assign(values, order) for order in (made, large)), key=lambda p: sum(map(weight, p.slots)))


def _assign(values: Sequence[Lifetime], order: Sequence[int]) -> MemoryPlan:
    slots: list[DimLike] = []
    held: list[list[Lifetime]] = []
    slot_of = [-1] * len(values)
    for i in order:
        value = values[i]
        slot = _best(value, slots, held)
        if slot is None:
            slot = len(slots)
            slots.append(0)
            held.append([])
        slots[slot] = largest(slots[slot], value.nbytes)
        held[slot].append(value)
        slot_of[i] = slot
    return MemoryPlan(tuple(slots), tuple(slot_of))


def _best(value: Lifetime, slots: Sequence[DimLike], held: Sequence[Sequence[Lifetime]]) -> int | None:
    """The slot that grows least, of those the smallest; None where a new one takes no more than that."""
    size = weight(value.nbytes)
    ranks = []
    for slot, nbytes in enumerate(slots):
        growth = weight(largest(nbytes, value.nbytes)) - weight(nbytes)
        if growth < max(size, 1) and not any(value.first <= v.last and v.first <= value.last for v in held[slot]):
            ranks.append((growth, weight(nbytes), slot))
    return min(ranks)[2] if ranks else None


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
