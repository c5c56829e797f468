"""Affine forms of integers over the axes of a tensor, and boolean formulas of comparisons between them.

The language in which `mask_values` says what a mask is: `k - q <= 0` is the causal mask, whatever nodes compute it.
Formulas are kept in negation normal form: conjunctions, disjunctions, comparisons with zero, and facts that only the
program's data decides (a padding flag).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fretsaw.ir import DimLike


@dataclass(frozen=True)
class Axis:
    """The index along axis ``number`` of the tensor that is described."""

    number: int

    def __str__(self) -> str:
        return f"i{self.number}"


@dataclass(frozen=True)
class Datum:
    """Element ``args`` of the tensor ``name``, known only when the program runs."""

    name: str
    args: tuple[Affine, ...]

    def __str__(self) -> str:
        return f"%{self.name}[{', '.join(map(str, self.args))}]"


Term = Axis | Datum


@dataclass(frozen=True)
class Affine:
    """``const`` plus coefficients times terms; terms sorted by their text, no zero coefficient."""

    terms: tuple[tuple[Term, int], ...]
    const: DimLike = 0

    def plus(self, other: Affine, factor: int = 1) -> Affine:
        """``self + factor * other``."""
        return _make([*self.terms, *((t, c * factor) for t, c in other.terms)], self.const + other.const * factor)

    def times(self, factor: int) -> Affine:
        return _make([(t, c * factor) for t, c in self.terms], self.const * factor)

    def at(self, where: Mapping[int, Affine]) -> Affine:
        """The form with axis numbers replaced by other forms."""
        out = Affine((), self.const)
        for term, factor in self.terms:
            inner = where.get(term.number, axis(term.number)) if isinstance(term, Axis) else _datum_at(term, where)
            out = out.plus(inner, factor)
        return out

    def __str__(self) -> str:
        parts = [("" if c == 1 else "-" if c == -1 else f"{c}*") + str(t) for t, c in self.terms]
        if self.const != 0 or not parts:
            parts.append(str(self.const))
        return " + ".join(parts)


def axis(number: int) -> Affine:
    return Affine(((Axis(number), 1),))


def number(value: DimLike) -> Affine:
    return Affine((), value)


def datum(name: str, args: Iterable[Affine]) -> Affine:
    return Affine(((Datum(name, tuple(args)), 1),))


def _datum_at(term: Datum, where: Mapping[int, Affine]) -> Affine:
    return datum(term.name, (a.at(where) for a in term.args))


def _make(terms: Iterable[tuple[Term, int]], const: DimLike) -> Affine:
    total: dict[Term, int] = {}
    for term, factor in terms:
        total[term] = total.get(term, 0) + factor
    return Affine(tuple(sorted(((t, c) for t, c in total.items() if c), key=lambda item: str(item[0]))), const)


@dataclass(frozen=True)
class Below:
    """``form <= 0``."""

    form: Affine

    def __str__(self) -> str:
        return f"{self.form} <= 0"


@dataclass(frozen=True)
class Fact:
    """A boolean element of a tensor, as it is or negated."""

    datum: Datum
    negated: bool = False

    def __str__(self) -> str:
        return ("not " if self.negated else "") + str(self.datum)


@dataclass(frozen=True)
class All:
    """Every part holds; no parts: true."""

    parts: tuple[Formula, ...] = ()

    def __str__(self) -> str:
        return f"({' and '.join(map(str, self.parts))})" if self.parts else "true"


@dataclass(frozen=True)
class Some:
    """One part holds at least; no parts: false."""

    parts: tuple[Formula, ...] = ()

    def __str__(self) -> str:
        return f"({' or '.join(map(str, self.parts))})" if self.parts else "false"


Formula = Below | Fact | All | Some
TRUE, FALSE = All(), Some()


def below(form: Affine) -> Formula:
    """``form <= 0``, decided when nothing in it is open."""
    if not form.terms and isinstance(form.const, int):
        return TRUE if form.const <= 0 else FALSE
    return Below(form)


def both(*parts: Formula) -> Formula:
    return _join(parts, All, FALSE)


def either_of(*parts: Formula) -> Formula:
    return _join(parts, Some, TRUE)


def _join(parts: Iterable[Formula], kind: type[All] | type[Some], absorbing: Formula) -> Formula:
    flat: dict[Formula, None] = {}
    for part in parts:
        for inner in part.parts if isinstance(part, kind) else (part,):
            flat[inner] = None
    kept = _bounds(list(flat), strongest=kind is All)
    if kept is None or absorbing in kept:
        return absorbing
    return kept[0] if len(kept) == 1 else kind(tuple(kept))


def _bounds(parts: list[Formula], *, strongest: bool) -> list[Formula] | None:
    """Parts with one bound for each form: the strongest in a conjunction, the weakest in a disjunction. None: bounds
    from both sides contradict each other, or leave nothing out."""
    limit: dict[tuple[tuple[Term, int], ...], int] = {}
    for part in parts:
        if isinstance(part, Below) and isinstance(part.form.const, int):
            terms, const = part.form.terms, part.form.const
            limit[terms] = (max if strongest else min)(const, limit.get(terms, const))
    for terms, const in limit.items():  # t <= -const, and from the other side t >= other
        other = limit.get(number(0).plus(Affine(terms), -1).terms)
        if other is not None and (other > -const if strongest else other <= 1 - const):
            return None
    out: dict[Formula, None] = {}
    for part in parts:
        held = limit.get(part.form.terms) if isinstance(part, Below) else None
        out[part if held is None or not isinstance(part, Below) else Below(Affine(part.form.terms, held))] = None
    return list(out)


def negate(formula: Formula) -> Formula:
    """The opposite, in negation normal form; integers make ``not a <= 0`` into ``1 - a <= 0``."""
    match formula:
        case Below(form):
            return below(number(1).plus(form, -1))
        case Fact(datum, negated):
            return Fact(datum, not negated)
        case All(parts):
            return either_of(*map(negate, parts))
        case Some(parts):
            return both(*map(negate, parts))


def rewrite(formula: Formula, leaf: Callable[[Below | Fact], Formula]) -> Formula:
    """The formula with every comparison and fact replaced."""
    match formula:
        case All(parts):
            return both(*(rewrite(p, leaf) for p in parts))
        case Some(parts):
            return either_of(*(rewrite(p, leaf) for p in parts))
        case _:
            return leaf(formula)


def formula_at(formula: Formula, where: Mapping[int, Affine]) -> Formula:
    """The formula with axis numbers replaced by affine forms."""

    def leaf(part: Below | Fact) -> Formula:
        if isinstance(part, Below):
            return below(part.form.at(where))
        return Fact(Datum(part.datum.name, tuple(a.at(where) for a in part.datum.args)), part.negated)

    return rewrite(formula, leaf)
