"""Symbolic dimensions: polynomials with integer coefficients over named symbols (``B*S``, ``2*T + 1``).

A dimension is a plain ``int`` or a :class:`Dim`. Polynomials are kept in one canonical form, so ``==`` is
equality for every value of the symbols and the text form is unique. That is all shape rules need: reshape
compares products of dims, concat adds them. There is no division but the exact one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

MAX_TERMS = 1000  # beyond any program; a product of sums grows exponentially, and the text may come from anybody
MAX_DEGREE = 64
Monomial = tuple[str, ...]  # sorted symbol names, with repeats: ("B", "S") is B*S, () is 1


@dataclass(frozen=True)
class Dim:
    """A polynomial that is not a constant. Build with :func:`sym` and ``+ - *``; ints stay ints."""

    terms: tuple[tuple[Monomial, int], ...]  # sorted, no zero coefficient

    def __add__(self, other: DimLike) -> DimLike:
        return _combine(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: DimLike) -> DimLike:
        return _combine(self, other, -1)

    def __rsub__(self, other: DimLike) -> DimLike:
        return _combine(other, self, -1)

    def __mul__(self, other: DimLike) -> DimLike:
        """The product.

        Raises:
            ValueError: it has over ``MAX_TERMS`` terms or a degree beyond ``MAX_DEGREE``.
        """
        out: dict[Monomial, int] = {}
        for a, x in self.terms:
            for b, y in _terms(other):
                key = tuple(sorted(a + b))
                out[key] = out.get(key, 0) + x * y
            if len(out) > MAX_TERMS or len(a) > MAX_DEGREE:
                raise ValueError("a dimension has too many terms")
        return _make(out)

    __rmul__ = __mul__

    def __str__(self) -> str:
        return " + ".join(_monomial_text(m, c) for m, c in self.terms)

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(name for m, _ in self.terms for name in m)


DimLike = int | Dim
Shape = tuple[DimLike, ...]


def sym(name: str) -> Dim:
    """The symbol ``name`` as a dimension."""
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ValueError(f"not a symbol name: {name!r}")
    return Dim((((name,), 1),))


def _terms(dim: DimLike) -> tuple[tuple[Monomial, int], ...]:
    return dim.terms if isinstance(dim, Dim) else (((), dim),)


def _make(terms: Mapping[Monomial, int]) -> DimLike:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if set(kept) == {()}:
        return kept[()]
    return Dim(tuple(sorted(kept.items(), key=lambda t: (-len(t[0]), t[0]))))


def _combine(a: DimLike, b: DimLike, sign: int) -> DimLike:
    out = dict(_terms(a))
    for m, c in _terms(b):
        out[m] = out.get(m, 0) + sign * c
    return _make(out)


def _monomial_text(m: Monomial, c: int) -> str:
    return "*".join([int_text(c)] * (c != 1 or not m) + list(m))


def int_text(number: int) -> str:
    """``str(number)``. Python refuses to write integers of over 4300 digits, which only a broken graph has."""
    bits = number.bit_length()
    return str(number) if bits < 10_000 else f"{'-' * (number < 0)}2^{bits}"


def dim_text(dim: DimLike) -> str:
    """Canonical text of a dimension; ``parse_dim`` reads it back."""
    return str(dim) if isinstance(dim, Dim) else int_text(dim)


def parse_dim(text: str) -> DimLike:
    """Read ``dim_text``'s form (any order of terms is accepted).

    Raises:
        ValueError: ``text`` is not a polynomial over symbols.
    """
    total: DimLike = 0
    for part in text.split("+"):
        term: DimLike = 1
        for factor in part.split("*"):
            factor = factor.strip()
            if re.fullmatch(r"-?\d{1,19}", factor):
                term = term * int(factor)
            else:
                term = term * sym(factor)
        total = total + term
    return total


def evaluate(dim: DimLike, env: Mapping[str, int]) -> int:
    """The value of ``dim`` where every symbol has its value from ``env``.

    Raises:
        KeyError: a symbol has no value.
    """
    if isinstance(dim, int):
        return dim
    return sum(c * prod(env[name] for name in m) for m, c in dim.terms)


def substitute(dim: DimLike, env: Mapping[str, DimLike]) -> DimLike:
    """``dim`` with symbols replaced by dimensions; symbols not in ``env`` stay."""
    total: DimLike = 0
    for m, c in _terms(dim):
        term: DimLike = c
        for name in m:
            term = term * env.get(name, sym(name))
        total = total + term
    return total


def product(dims: Shape) -> DimLike:
    """Number of elements of a shape."""
    out: DimLike = 1
    for d in dims:
        out = out * d
    return out


def divide(dim: DimLike, by: DimLike) -> DimLike | None:
    """``dim / by`` where it is exact for every value of the symbols and ``by`` is one monomial; else None."""
    if by == 0:
        return None
    divisor = _terms(by)
    if len(divisor) != 1:
        return 1 if dim == by else None
    (mono, coeff), out = divisor[0], {}
    for m, c in _terms(dim):
        rest = list(m)
        for name in mono:
            if name not in rest:
                return None
            rest.remove(name)
        if c % coeff:
            return None
        out[tuple(rest)] = c // coeff
    return _make(out)
