"""Analysis: recognise an attention mask by what it lets a query see.

    k - q <= 0                                    causal
    k - q <= 0 and q - k - 7 <= 0                 causal, window 8: the last eight tokens
    |q - k| - 4 <= 0                              window 5 on both sides
    %attention_mask[b, k]                         padding: a flag per key
    k - q <= 0 or k - n + 1 <= 0                  prefix: every query sees the first n keys

and conjunctions of these. Anything else is refused with the part that is strange, and the node that makes the mask.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fretsaw.ir import DimLike, Graph, Node, Value
from fretsaw.passes.canonical.affine import (
    FALSE,
    TRUE,
    Affine,
    All,
    Axis,
    Below,
    Fact,
    Formula,
    Some,
    axis,
    both,
    formula_at,
    negate,
    number,
    rewrite,
)  # fmt: skip
from fretsaw.passes.canonical.mask_values import read_mask
from fretsaw.passes.kit.edit import Decline

QUERY, KEY, RANK = 2, 3, 4  # axes of a mask [B, H, S, T]


@dataclass(frozen=True)
class Mask:
    """A recognised mask.

    Args:
        ahead: How many keys after its own a query sees; None: all.
        back: How many keys before its own it sees; None: all.
        padding: Flags per key that hide it, by the name of their tensor.
        prefix: Number of keys that every query sees, as text; empty: none.
    """

    ahead: int | None = None
    back: int | None = None
    padding: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def causal(self) -> bool:
        return self.ahead == 0

    @property
    def window(self) -> int:
        """As in op ``attention``: tokens seen to one side, the own one counted; 0 for all."""
        return 0 if self.back is None else self.back + 1

    def __str__(self) -> str:
        parts = ["causal" if self.causal else "bidirectional"] if self.ahead == 0 or not self.padding else []
        if self.window:
            parts.append(f"window {self.window}")
        parts += [f"padding by %{name}" for name in self.padding]
        if self.prefix:
            parts.append(f"prefix of {self.prefix} tokens")
        return ", ".join(parts)


@dataclass
class _Bounds:
    """What the parts of a conjunction say, collected."""

    ahead: list[int] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
    padding: list[str] = field(default_factory=list)
    prefix: str = ""


@dataclass(frozen=True)
class Hiding:
    """A mask and the node that applies it: a condition under which keys are shown (or hidden), or an addition."""

    value: Value
    at: Node
    shows: bool = True


def find_mask(g: Graph, hidings: Sequence[Hiding], shape: tuple[DimLike, ...]) -> Mask | Decline:
    """The mask that all ``hidings`` together are to logits of ``shape`` [B, H, S, T]."""
    formulas: list[Formula] = []
    for hiding in hidings:
        formula = read_mask(g, hiding.value, hiding.at)
        if isinstance(formula, Decline):
            return formula
        shift = RANK - hiding.value.tensor.rank
        moved = formula_at(formula, {i: axis(i + shift) for i in range(hiding.value.tensor.rank)})
        formulas.append(moved if hiding.shows else negate(moved))
    found = classify(both(*formulas), shape)
    if isinstance(found, Mask):
        return found
    strange = next(
        (h for h, f in zip(hidings, formulas, strict=True) if isinstance(classify(f, shape), str)), hidings[0]
    )
    return Decline(f"the mask is not one that is known: {found}", at=g.producer(strange.value) or strange.at)


def classify(formula: Formula, shape: tuple[DimLike, ...]) -> Mask | str:
    """The mask that a formula over [B, H, S, T] describes, or the part of it that no known mask has."""
    formula = _decided(formula, shape)
    if formula == FALSE:
        return "no query sees any key"
    bounds, offset = _Bounds(), shape[KEY] - shape[QUERY]
    for part in formula.parts if isinstance(formula, All) else (formula,):
        strange = _collect(bounds, part, offset)
        if strange:
            return strange
    ahead, back = (min(b) if b else None for b in (bounds.ahead, bounds.back))
    if ahead not in (0, back):
        return f"a query sees {_count(back)} keys back and {_count(ahead)} ahead"
    return Mask(ahead, back, tuple(dict.fromkeys(bounds.padding)), bounds.prefix)


def _count(bound: int | None) -> str:
    return "all" if bound is None else str(bound)


def _collect(bounds: _Bounds, part: Formula, offset: DimLike) -> str:
    """Add one part to ``bounds``; returns what is strange about it."""
    if isinstance(part, Fact):
        axes = {t.number for a in part.datum.args for t, _ in a.terms if isinstance(t, Axis)}
        if part.negated or not axes <= {0, KEY} or KEY not in axes:
            return f"{_named(part)} is no flag of keys"
        bounds.padding.append(part.datum.name)
        return ""
    reach = _reach(part, offset)
    if reach is not None:
        side, tokens = reach
        (bounds.ahead if side == "ahead" else bounds.back).append(tokens)
        return "" if tokens >= 0 else f"{_named(part)} hides a query's own key"
    size = _prefix(part, offset)
    if size is None or bounds.prefix:
        return _named(part)
    bounds.ahead.append(0)
    bounds.prefix = size
    return ""


def _reach(part: Formula, offset: DimLike) -> tuple[str, int] | None:
    """``k - q`` or ``q - k`` bounded: the side, and how many tokens away the last seen key is."""
    if not isinstance(part, Below):
        return None
    for sign, side in ((1, "ahead"), (-1, "back")):
        gap = axis(KEY).plus(axis(QUERY), -1).plus(number(offset), -1).times(sign)  # aligned at the last token
        rest = part.form.plus(gap, -1)
        if not rest.terms and isinstance(rest.const, int):
            return side, -rest.const
    return None


def _prefix(part: Formula, offset: DimLike) -> str | None:
    """n when ``part`` is: causal, or key below n (and query below n: the same, since causal covers the rest)."""
    if not isinstance(part, Some) or len(part.parts) != 2:
        return None
    for one, other in (part.parts, part.parts[::-1]):
        if _reach(one, offset) != ("ahead", 0):
            continue
        limits = {_limit(p) for p in (other.parts if isinstance(other, All) else (other,))}
        sizes = {size for found in limits if found is not None for size in [found[1]]}
        if None not in limits and KEY in {found[0] for found in limits if found} and len(sizes) == 1:
            return _named(sizes.pop())
    return None


def _limit(part: Formula) -> tuple[int, Affine] | None:
    """(axis, n) of ``axis < n`` with n the same for all queries and keys."""
    if isinstance(part, Below):
        for number_of in (KEY, QUERY):
            rest = part.form.plus(axis(number_of), -1).times(-1).plus(number(1))
            if not _axes(rest) & {QUERY, KEY}:
                return number_of, rest
    return None


def _axes(form: Affine) -> set[int]:
    inner = [a for t, _ in form.terms if not isinstance(t, Axis) for a in t.args]
    return {t.number for t, _ in form.terms if isinstance(t, Axis)}.union(*map(_axes, inner))


def _decided(formula: Formula, shape: tuple[DimLike, ...]) -> Formula:
    """The formula without comparisons that always hold: indices lie between 0 and their axis' length."""

    def leaf(part: Below | Fact) -> Formula:
        if isinstance(part, Below):
            if _never_above_zero(part.form, shape):
                return TRUE
            opposite = negate(part)
            if isinstance(opposite, Below) and _never_above_zero(opposite.form, shape):
                return FALSE
        return part

    return rewrite(formula, leaf)


def _never_above_zero(form: Affine, shape: tuple[DimLike, ...]) -> bool:
    top: DimLike = form.const
    for term, factor in form.terms:
        if not isinstance(term, Axis):
            return False
        top = top + (shape[term.number] - 1) * factor if factor > 0 else top
    return isinstance(top, int) and top <= 0


def _named(part: Formula | Affine) -> str:
    """The text with b, h, q and k for the axes."""
    return re.sub(r"\bi([0-3])\b", lambda found: "bhqk"[int(found[1])], str(part))
