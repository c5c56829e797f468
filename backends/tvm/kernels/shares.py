"""Deal tasks of known and uneven cost over threads: contiguous runs of tasks whose costs are equal.

TVM's parallel loop gives each thread a contiguous range of iterations. Here an iteration is a share: the tasks that
begin in one of ``SHARES`` equal parts of the line on which all tasks lie, each as long as its cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, bind, i64, load, loop, scratch, store, workspace

SHARES = 240  # a multiple of most thread counts
_STEPS = 40  # halvings, enough for 2**40 tasks


@dataclass(frozen=True)
class Shares:
    """Where tasks begin on the line; ``starts[tasks]`` is where it ends."""

    starts: Buffer
    tasks: Expr
    count: int = SHARES

    @staticmethod
    def lay(room: Expr, cost: Callable[[Expr], Expr]) -> Shares:
        """Add up the costs (int64, 0 or more) of ``room`` tasks: an expression over sizes, for it is allocated."""
        starts, tasks = workspace((room + 1,), "int64"), bind(room)
        store(starts, [0], i64(0))
        with loop(tasks) as i:
            store(starts, [i + 1], load(starts, [i]) + cost(i))
        return Shares(starts, tasks)

    def bounds(self, share: Expr) -> tuple[Expr, Expr]:
        """Return the first task of a share and one past its last."""
        total = bind(load(self.starts, [self.tasks]))
        return self._first(bind(total * share // self.count)), self._first(bind(total * (share + 1) // self.count))

    def _first(self, place: Expr) -> Expr:
        """Return the first task that begins at ``place`` or later."""
        return lower_bound(self.tasks, place, lambda i: load(self.starts, [i]))


def lower_bound(count: Expr, value: Expr, at: Callable[[Expr], Expr]) -> Expr:
    """Return the first of ``count`` ascending numbers ``at(i)`` that is ``value`` or more, ``count`` if none is."""
    low, high = scratch((1,), "int64"), scratch((1,), "int64")
    store(low, [0], i64(0))
    store(high, [0], count)
    with loop(_STEPS):
        a, z = bind(load(low, [0])), bind(load(high, [0]))
        with T.If(a < z), T.Then():
            middle = bind((a + z) // 2)
            with T.If(at(middle) < value):
                with T.Then():
                    store(low, [0], middle + 1)
                with T.Else():
                    store(high, [0], middle)
    return bind(load(low, [0]))
