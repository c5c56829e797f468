"""From plans to the step program: numbered values in slots, calls by name."""

from __future__ import annotations

from collections.abc import Mapping

from fretsaw.backends.program.entry import Argument, Array, ArrayType, Call, Entry, StepProgram
from fretsaw.backends.program.memory import Lifetime, plan_memory
from fretsaw.backends.program.steps import Arg, CacheSlot, Launch, Plan, Tensor
from fretsaw.ir import Dim, Value
from fretsaw.ir.errors import LoweringError

_STORED: Mapping[str, ArrayType] = {"f32": "f32", "f16": "f16", "i32": "i32", "i64": "i64", "bool": "i8"}


def assemble(plans: Mapping[str, Plan]) -> StepProgram:
    """The program.

    Args:
        plans: By the name of their entry; they read the same tensors.

    Raises:
        LoweringError: a value of a type that no kernel writes.
    """
    return StepProgram(tuple(_Entry(name, plan).entry() for name, plan in plans.items()))


class _Entry:
    """Numbers the values of one plan."""

    def __init__(self, name: str, plan: Plan) -> None:
        self.name, self.plan = name, plan
        self.tensors = {tensor.name: i for i, tensor in enumerate(plan.tensors)}
        self.index: dict[Value, int] = {}
        self.first: dict[Value, int] = {}  # launches, by the values whose bytes they touch
        self.last: dict[Value, int] = {}

    def entry(self) -> Entry:
        plan = self.plan
        for value in plan.inputs:
            self.number(value)
        calls = tuple(self.call(i, launch) for i, launch in enumerate(plan.launches))
        for value in plan.outputs:
            self.number(value)
            self.last[plan.source(value)] = len(calls)
        made = [v for v in self.index if v in self.first]
        memory = plan_memory([Lifetime(_array(v).nbytes, self.first[v], self.last[v]) for v in made])
        slots = dict(zip(made, memory.slot_of, strict=True))
        values = tuple(self.array(value, slots) for value in self.index)
        dims = [d for v in values for d in v.shape] + list(memory.slots)
        symbols = sorted({name for d in dims if isinstance(d, Dim) for name in d.symbols})
        inputs, outputs = (tuple(self.index[v] for v in part) for part in (plan.inputs, plan.outputs))
        return Entry(self.name, tuple(symbols), inputs, outputs, memory.slots, values, calls)

    def number(self, value: Value) -> int:
        """The value's number; what it is a reshape of comes before it."""
        source = self.plan.source(value)
        self.index.setdefault(source, len(self.index))
        return self.index.setdefault(value, len(self.index))

    def call(self, at: int, launch: Launch) -> Call:
        args = [self.argument(at, arg) for arg in launch.inputs] + [Argument("int", n) for n in launch.scalars]
        for value in launch.outputs:
            args.append(Argument("value", self.number(value)))
            self.first[value] = self.last[value] = at
        return Call(launch.spec.name, tuple(args), len(launch.outputs))

    def argument(self, at: int, arg: Arg) -> Argument:
        if isinstance(arg, Tensor):
            return Argument("tensor", self.tensors[arg.name])
        if isinstance(arg, CacheSlot):
            return Argument("cache", arg.name)
        number = self.number(arg)
        self.last[self.plan.source(arg)] = at
        return Argument("value", number)

    def array(self, value: Value, slots: Mapping[Value, int]) -> Array:
        source = self.plan.source(value)
        of = None if source == value else self.index[source]
        return _array(value, slots.get(value), of)


def _array(value: Value, slot: int | None = None, of: int | None = None) -> Array:
    kind = value.tensor
    if kind.dtype not in _STORED:
        raise LoweringError(f"%{value.name} is {kind.dtype}, which no kernel writes", hint="this is a bug of Fretsaw")
    return Array(value.name, _STORED[kind.dtype], kind.shape, slot, of)
