"""A step program as text for people: one line for each launch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fretsaw.backends.program.entry import Argument, Array, Call, Entry, StepProgram


def to_text(program: StepProgram, tensors: Sequence[str] = ()) -> str:
    """The program.

    %x    a value of the step, $w a tensor of the artifact, ~table an array of the cache
    %y f32[T, 48] @2, 192*T bytes    a value that the launch makes, its slot in the workspace and its size

    Args:
        tensors: Names of the artifact's tensors; without, they stand by number.
    """
    return "\n".join(line for entry in program.entries for line in _entry(entry, tensors)) + "\n"


def _entry(entry: Entry, tensors: Sequence[str]) -> Iterator[str]:
    inputs = ", ".join(_typed(entry.values[i]) for i in entry.inputs)
    outputs = ", ".join(_typed(entry.values[i]) for i in entry.outputs)
    yield f"entry {entry.name}({inputs}) -> {outputs}"
    yield f"  {len(entry.calls)} launches, {len(entry.values)} values, {len(entry.slots)} slots"
    for i, slot in enumerate(entry.slots):
        yield f"  @{i}: {slot} bytes"
    width = len(str(max(len(entry.calls) - 1, 0)))
    for i, call in enumerate(entry.calls):
        yield f"  {i:>{width}}  {_call(entry, call, tensors)}"


def _call(entry: Entry, call: Call, tensors: Sequence[str]) -> str:
    given = len(call.args) - call.made
    read = ", ".join(_argument(entry, a, tensors) for a in call.args[:given])
    made = ", ".join(_made(entry.values[i]) for i in call.makes)
    return f"{call.kernel}({read})" + (f" -> {made}" if made else "")


def _argument(entry: Entry, argument: Argument, tensors: Sequence[str]) -> str:
    kind, what = argument
    if kind == "cache":
        return f"~{what}"
    if kind == "int" or not isinstance(what, int):
        return str(what)
    if kind == "tensor":
        return f"${tensors[what]}" if what < len(tensors) else f"${what}"
    value, whole = entry.values[what], entry.values[entry.root(what)]
    return f"%{whole.name}" + (f" as {_shape(value)}" if value.shape != whole.shape else "")


def _made(value: Array) -> str:
    return f"{_typed(value)} @{value.slot}, {value.nbytes} bytes"


def _typed(value: Array) -> str:
    return f"%{value.name} {value.dtype}{_shape(value)}"


def _shape(value: Array) -> str:
    return f"[{', '.join(map(str, value.shape))}]"
