"""What a value in a mask's computation can mean: an integer form, its magnitude, a condition, one of two numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fretsaw.ir import Node
from fretsaw.passes.canonical.affine import Affine, Formula, formula_at


@dataclass(frozen=True)
class Choice:
    """A number that is ``kept`` where the formula holds and ``lost`` elsewhere."""

    where: Formula
    kept: float
    lost: float


@dataclass(frozen=True)
class Magnitude:
    """The absolute value of a form."""

    form: Affine


Meaning = Affine | Magnitude | Formula | Choice


class Unreadable(Exception):
    """Control flow of the analysis: carries the decline to the outermost call."""

    def __init__(self, reason: str, at: Node | None) -> None:
        super().__init__(reason)
        self.reason, self.at = reason, at


def at(meaning: Meaning, where: Mapping[int, Affine]) -> Meaning:
    """The meaning of a value whose axes are reached through other axes."""
    match meaning:
        case Affine():
            return meaning.at(where)
        case Magnitude(form):
            return Magnitude(form.at(where))
        case Choice(formula, kept, lost):
            return Choice(formula_at(formula, where), kept, lost)
        case _:
            return formula_at(meaning, where)
