"""A small program by hand, good in every respect, for tests that spoil one thing."""

from __future__ import annotations

from fretsaw.backends.program.entry import Argument, Array, Call, Entry, StepProgram
from fretsaw.backends.program.verify import Beside
from fretsaw.ir.dims import DimLike, sym

T, R = sym("T"), sym("R")
SLOTS: tuple[DimLike, ...] = (T * 40, T * 32 + 8, R * 20)
BESIDE = Beside(1, ("cu", "lens", "table", "k_pages", "v_pages"), ("step",), ("look", "attend", "take"))


def value(i: int) -> Argument:
    return Argument("value", i)


def tensor(i: int) -> Argument:
    return Argument("tensor", i)


def cache(name: str) -> Argument:
    return Argument("cache", name)


VALUES = (
    Array("tokens", "i32", (T,)),
    Array("rows", "i32", (R,)),
    Array("h", "f32", (T, 8), 1),
    Array("o", "f32", (T, 2, 4), 0),
    Array("o.flat", "f32", (T, 8), of=3),
    Array("mask", "i8", (T, 4), 1),
    Array("logits", "f32", (R, 5), 2),
)
CALLS = (
    Call("look", (value(0), tensor(0), value(2)), 1),
    Call("attend", (value(2), cache("k_pages"), cache("cu"), Argument("int", -3), value(3)), 1),
    Call("look", (value(4), value(5)), 1),
    Call("take", (value(4), value(5), value(1), tensor(0), value(6)), 1),
)
ENTRY = Entry("step", ("R", "T"), (0, 1), (6,), SLOTS, VALUES, CALLS)
PROGRAM = StepProgram((ENTRY,))
