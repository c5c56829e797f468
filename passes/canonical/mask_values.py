"""Analysis: what an attention mask is, read off the nodes that compute it, as a formula over its axes.

    %q = reshape(iota(), [S, 1])
    %k = reshape(iota(), [1, S])                 ==>     i1 - i0 <= 0
    %m = le(%k, %q)

Each op has an exact meaning here, so nothing is guessed from samples; an op without one refuses, with its node.
Integers are affine forms of the axes, booleans are formulas, floats take one of two values. By the calling convention
of captured graphs the rows of the input ``positions`` count up by one.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping

from fretsaw.ir import Graph, Node, Value
from fretsaw.ir.types import INTS, TensorType
from fretsaw.passes.canonical.affine import (
    TRUE,
    Affine,
    All,
    Below,
    Datum,
    Fact,
    Formula,
    Some,
    axis,
    below,
    both,
    datum,
    either_of,
    negate,
    number,
)  # fmt: skip
from fretsaw.passes.canonical.mask_meaning import Choice, Magnitude, Meaning, Unreadable, at
from fretsaw.passes.canonical.mask_moves import MOVES
from fretsaw.passes.canonical.mask_tables import read_table
from fretsaw.passes.kit.edit import Decline
from fretsaw.passes.kit.match import scalar

BLOCKED = -1e4  # a logit lowered by this much has no weight left, in any float type
READ = (
    "iota", "full", "cast", "neg", "abs", "add", "sub", "mul", "div", "mod", "logical_not", "lt", "le", "gt", "ge",
    "eq", "ne", "where",
)  # fmt: skip
ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul,
}  # fmt: skip
COUNTING = "positions"  # graph input i64[B, S] whose rows count up by one


def read_mask(g: Graph, value: Value, root: Node) -> Formula | Decline:
    """Where a mask lets a query see a key: over the axes of ``value``, boolean or added to logits.

    Args:
        root: The node to blame for masks that no node makes.
    """
    try:
        meaning = _Reader(g).read(value)
    except Unreadable as problem:
        return Decline(f"the mask cannot be read: {problem.reason}", at=problem.at or root)
    if isinstance(meaning, (Below, Fact, All, Some)):
        return meaning
    if isinstance(meaning, Choice):
        if meaning.kept == 0 and meaning.lost <= BLOCKED:
            return meaning.where
        if meaning.lost == 0 and meaning.kept <= BLOCKED:
            return negate(meaning.where)
        what = f"it adds {meaning.kept:g} or {meaning.lost:g}, not 0 or at most {BLOCKED:g}"
        return Decline(f"the mask cannot be read: {what}", at=g.producer(value) or root)
    return Decline("the mask cannot be read: integers are added to the logits", at=g.producer(value) or root)


class _Reader:
    """Meanings of the values of one graph, each computed once."""

    def __init__(self, g: Graph) -> None:
        self.g = g
        self.known: dict[Value, Meaning] = {}

    def read(self, value: Value) -> Meaning:
        if value not in self.known:
            node = self.g.producer(value)
            meaning = self._source(value) if node is None else self._node(node)
            units = {i: number(0) for i, d in enumerate(value.tensor.shape) if d == 1}
            self.known[value] = at(meaning, units)
        return self.known[value]

    def _source(self, value: Value) -> Meaning:
        kind, every = value.tensor, tuple(map(axis, range(value.tensor.rank)))
        held = scalar(self.g, value)
        if held is not None:
            return _constant(held, kind)
        if value in self.g.consts:
            table = read_table(self.g.consts[value])
            if table is None:
                raise Unreadable(f"%{value.name} is a table of constants", None)
            return table
        if kind.dtype == "bool":
            return Fact(Datum(value.name, every))
        if kind.dtype in INTS:
            if value.name == COUNTING and kind.rank == 2:
                return datum(f"{COUNTING}.start", [axis(0)]).plus(axis(1))
            return datum(value.name, every)
        raise Unreadable(f"%{value.name} is a table of floats from outside", None)

    def _node(self, node: Node) -> Meaning:
        move = MOVES.get(node.op)
        if move is not None:
            return move(node, self.read)
        if node.op not in READ:
            raise Unreadable(f"{node.op} has no meaning as a mask", node)
        operands = [at(self.read(v), _aligned(v, node)) for v in node.operands]
        match node.op, operands:
            case "iota", _:
                return axis(0)
            case "full", _:
                return _constant(node.float_attr("value"), node.out.tensor)
            case "cast", [x]:
                return _cast(x, node)
            case "neg", [Affine() as a]:
                return a.times(-1)
            case "abs", [Affine() as a]:
                return Magnitude(a)
            case "add" | "sub", [Affine() as a, Affine() as b]:
                return a.plus(b, 1 if node.op == "add" else -1)
            case "mul", [Affine() as a, Affine() as b] if not (a.terms and b.terms) and _fixed(a, b) is not None:
                return (a if a.terms else b).times(_fixed(a, b) or 0)
            case ("div" | "mod") as op, [Affine() as a, Affine() as b] if not b.terms:
                return datum(f"{op} {b.const}", [a])
            case "logical_not", [x]:
                return negate(_formula(x, node))
            case ("add" | "mul") as op, [a, b] if node.out.tensor.dtype == "bool":
                return (either_of if op == "add" else both)(_formula(a, node), _formula(b, node))
            case ("add" | "sub" | "mul") as op, [Choice() as a, Choice() as b]:
                return _arithmetic(op, a, b, node)
            case ("lt" | "le" | "gt" | "ge" | "eq" | "ne") as op, [a, b]:
                return _compare(op, a, b, node)
            case "where", [cond, a, b]:
                return _where(_formula(cond, node), a, b, node)
        raise Unreadable(f"{node.op} has no meaning as a mask", node)


def _aligned(value: Value, node: Node) -> dict[int, Affine]:
    """Axes of a broadcast operand, counted from the end, as axes of the result."""
    shift = node.out.tensor.rank - value.tensor.rank
    return {i: axis(i + shift) for i in range(value.tensor.rank)}


def _constant(held: float, kind: TensorType) -> Meaning:
    if kind.dtype == "bool":
        return TRUE if held else negate(TRUE)
    return number(int(held)) if kind.dtype in INTS else Choice(TRUE, float(held), float(held))


def _fixed(a: Affine, b: Affine) -> int | None:
    factor = b.const if a.terms else a.const
    return factor if isinstance(factor, int) else None


def _formula(x: Meaning, node: Node) -> Formula:
    if isinstance(x, (Affine, Magnitude, Choice)):
        raise Unreadable("a condition is no comparison", node)
    return x


def _cast(x: Meaning, node: Node) -> Meaning:
    to = node.out.tensor.dtype
    match x:
        case Affine() | Magnitude():
            if to not in INTS:
                raise Unreadable("integers are turned into floats", node)
            return x
        case Choice(where, kept, lost):
            if to == "bool":
                return both(either_of(where, _truth(lost)), either_of(negate(where), _truth(kept)))
            return x
        case _ if to == "bool":
            return x
        case All(()) | Some(()) if to in INTS:
            return number(1 if x == TRUE else 0)
        case _:
            return Choice(x, 1.0, 0.0)


def _truth(held: float) -> Formula:
    return TRUE if held else negate(TRUE)


def _compare(op: str, a: Meaning, b: Meaning, node: Node) -> Formula:
    if op in ("gt", "ge"):
        return _compare({"gt": "lt", "ge": "le"}[op], b, a, node)
    if op == "ne":
        return negate(_compare("eq", a, b, node))
    strict = number(1 if op == "lt" else 0)
    match a, b:
        case Affine(), Affine():
            gap = a.plus(b, -1)
            return both(below(gap), below(gap.times(-1))) if op == "eq" else below(gap.plus(strict))
        case Magnitude(form), Affine() if op != "eq":
            return both(*(below(form.times(sign).plus(b, -1).plus(strict)) for sign in (1, -1)))
        case Choice(where, kept, lost), Choice(c, held, _) if op == "eq" and c == TRUE:
            return _where(where, _truth(kept == held), _truth(lost == held), node)  # type: ignore[return-value]
    raise Unreadable(f"{op} compares what is no integer", node)


def _arithmetic(op: str, a: Choice, b: Choice, node: Node) -> Choice:
    fn = ARITHMETIC[op]
    if b.where == TRUE:
        out = Choice(a.where, fn(a.kept, b.kept), fn(a.lost, b.kept))
    elif a.where == TRUE:
        out = Choice(b.where, fn(a.kept, b.kept), fn(a.kept, b.lost))
    elif op == "add" and max(a.lost, b.lost) <= BLOCKED and a.kept == b.kept == 0:
        out = Choice(both(a.where, b.where), 0.0, max(a.lost, b.lost))
    else:
        raise Unreadable(f"{op} of two masks that are not 0 or at most {BLOCKED:g}", node)
    if math.isnan(out.kept) or math.isnan(out.lost):
        raise Unreadable("it holds no number where zero meets infinity", node)
    return out


def _where(cond: Formula, a: Meaning, b: Meaning, node: Node) -> Meaning:
    match a, b:
        case Choice(TRUE_, x, _), Choice() if TRUE_ == TRUE:
            if b.where == TRUE:
                return Choice(cond, x, b.kept)
            if x == b.kept:
                return Choice(either_of(cond, b.where), b.kept, b.lost)
            if x == b.lost or max(x, b.lost) <= BLOCKED:
                return Choice(both(negate(cond), b.where), b.kept, max(x, b.lost))
        case Choice(), Choice(TRUE_, _, _) if TRUE_ == TRUE:
            return _where(negate(cond), b, a, node)
        case Below() | Fact() | All() | Some(), Below() | Fact() | All() | Some():
            return both(either_of(negate(cond), a), either_of(cond, b))
    raise Unreadable("where chooses between more than two numbers", node)
