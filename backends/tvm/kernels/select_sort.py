"""Stable order of numbers, largest first, equal ones by index: a radix sort of 32 bits in four passes.

A number and its index share 64 bits, the number's part turned so that larger numbers are smaller codes. -0 counts as 0
and NaN as -inf.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, Index, bind, i32, load, loop, select, store, workspace

_DIGITS, _BINS = 4, 256


def clean(x: Expr) -> Expr:
    """Return a score with -inf in place of NaN, and 0 in place of -0."""
    x = bind(x)
    least = tirx.const(float("-inf"), "float32")
    number = bind(select(x >= least, x, least))  # not x == x, which TVM takes for true
    return bind(select(tirx.all(number <= 0.0, number >= 0.0), tirx.const(0.0, "float32"), number))


def _code(x: Expr, index: Expr) -> Expr:
    bits = bind(T.reinterpret("uint32", x))
    ones, sign = tirx.const(0xFFFFFFFF, "uint32"), tirx.const(0x80000000, "uint32")
    rising = bind(bits ^ select(bits >= sign, ones, sign))
    falling = tirx.Cast("uint64", bind(rising ^ ones))
    return (falling << tirx.const(32, "uint64")) | tirx.Cast("uint64", index)


@dataclass(frozen=True)
class Order:
    """Memory for the order of up to ``room`` numbers; ``at(i)`` is the index of the i-th largest."""

    codes: Buffer
    spare: Buffer
    counts: Buffer

    @staticmethod
    def allocate(room: Index) -> Order:
        """Take memory from the pool: an expression over sizes, for it is allocated at the top."""
        codes, spare = (workspace((room,), "uint64") for _ in range(2))
        return Order(codes, spare, workspace((_DIGITS, _BINS), "int32"))

    def sort(self, count: Expr, number: Callable[[Expr], Expr]) -> None:
        """Order ``count`` numbers, ``number(i)`` having been through :func:`clean`."""
        with loop(_DIGITS) as d, loop(_BINS) as c:
            store(self.counts, [d, c], i32(0))
        with loop(count) as i:
            code = bind(_code(number(i), i))
            store(self.codes, [i], code)
            for d in range(_DIGITS):
                place = bind(self._digit(code, d))
                store(self.counts, [d, place], load(self.counts, [d, place]) + 1)
        for d in range(_DIGITS):
            self._pass(d, count, *((self.codes, self.spare) if d % 2 == 0 else (self.spare, self.codes)))

    def _digit(self, code: Expr, d: int) -> Expr:
        return tirx.Cast("int64", (code >> tirx.const(32 + 8 * d, "uint64")) & tirx.const(255, "uint64"))

    def _pass(self, d: int, count: Expr, source: Buffer, target: Buffer) -> None:
        total = workspace((1,), "int32")
        store(total, [0], i32(0))
        with loop(_BINS) as c:
            own = bind(load(self.counts, [d, c]))
            store(self.counts, [d, c], load(total, [0]))
            store(total, [0], load(total, [0]) + own)
        with loop(count) as i:
            code = bind(load(source, [i]))
            digit = bind(self._digit(code, d))
            place = bind(load(self.counts, [d, digit]))
            store(target, [tirx.Cast("int64", place)], code)
            store(self.counts, [d, digit], place + 1)

    def at(self, i: Expr) -> Expr:
        """Return the index of the i-th largest number."""
        return tirx.Cast("int64", load(self.codes, [i]) & tirx.const(0xFFFFFFFF, "uint64"))
