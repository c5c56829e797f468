"""What a step program must hold before anybody runs it (docs/program.md)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fretsaw.backends.program.entry import ARRAY_BYTES, Call, Entry, StepProgram
from fretsaw.backends.program.memory import coefficients, dominates
from fretsaw.backends.program.serialize import MAX_DEGREE, MAX_NUMBER, MAX_TERMS
from fretsaw.ir.dims import DimLike
from fretsaw.ir.errors import ArtifactError

CACHE = ("cu", "lens", "table")  # beside the planes that the manifest lists
# Symbols and inputs of a decoder, which has a cache, and of an encoder.
DECODER = (("T", "B", "R", "QB", "KB"), ("tokens", "positions", "rows"))
ENCODER = (("T", "B"), ("tokens", "positions", "cu"))


@dataclass(frozen=True)
class Beside:
    """What the rest of an artifact says about its program.

    Args:
        tensors: How many the manifest lists.
        cache: Names of the cache's arrays that a step has; none for an encoder.
        entries: Entries that the manifest names.
        kernels: Functions of the code section; None where the code is not looked at.
    """

    tensors: int
    cache: Collection[str]
    entries: Collection[str] = ()
    kernels: Collection[str] | None = None

    @property
    def symbols(self) -> tuple[str, ...]:
        """What is known before a step."""
        return (DECODER if self.cache else ENCODER)[0]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that a caller binds."""
        return (DECODER if self.cache else ENCODER)[1]

    @staticmethod
    def of(manifest: Mapping[str, object]) -> Beside:
        """From a validated manifest."""
        weights, program, kv = manifest["weights"], manifest["program"], manifest.get("kv", {})
        assert isinstance(weights, dict) and isinstance(program, dict) and isinstance(kv, dict)
        cache = (*CACHE, *(plane["name"] for plane in kv["planes"])) if kv else ()
        dense = (program["dense"]["entry"],) if "dense" in program else ()
        return Beside(len(weights["tensors"]), cache, (program["entry"], *dense))


def verify_program(program: StepProgram, beside: Beside) -> None:
    """Refuse a program that could read or write what is not its own.

    Raises:
        ArtifactError: the first thing that is wrong, with its place.
    """
    if not program.entries:
        raise _wrong("", "there is no entry")
    names = [entry.name for entry in program.entries]
    if len(set(names)) < len(names):
        raise _wrong("", f"two entries have one name: {', '.join(names)}")
    missing = [name for name in beside.entries if name not in names]
    if missing:
        raise _wrong("", f"the manifest names the entry {missing[0]}, which is not there")
    for entry in program.entries:
        unknown = sorted(set(entry.symbols) - set(beside.symbols))
        if unknown:
            raise _wrong(entry.name, f"no step has the symbol {unknown[0]!r}, only {', '.join(beside.symbols)}")
        _check_values(entry, beside)
        for i, call in enumerate(entry.calls):
            _check_arguments(entry, i, call, beside)
        _check_order(entry)


def _check_values(entry: Entry, beside: Beside) -> None:
    for i in (*entry.inputs, *entry.outputs):
        _check_index(entry, i, len(entry.values), "value")
    if len({entry.values[i].name for i in entry.inputs}) < len(entry.inputs):
        raise _wrong(entry.name, "an input is listed twice")
    for i, value in enumerate(entry.values):
        where = f"value {i} ({value.name})"
        if i in entry.inputs:
            if value.slot is not None or value.of is not None:
                raise _wrong(entry.name, f"{where} is an input and has a place in the workspace")
            if value.name not in beside.inputs or value.dtype != "i32" or len(value.shape) != 1:
                raise _wrong(entry.name, f"{where} is an input that no caller binds")
        elif (value.slot is None) == (value.of is None):
            raise _wrong(entry.name, f"{where} must have either a slot or a value that it is a reshape of")
        if value.slot is not None:
            _check_index(entry, value.slot, len(entry.slots), "slot")
            nbytes = _product(entry, where, (*value.shape, ARRAY_BYTES[value.dtype]))
            if not dominates(entry.slots[value.slot], nbytes):
                raise _wrong(entry.name, f"{where} of {nbytes} bytes does not fit slot {value.slot}")
        if value.of is not None:
            _check_index(entry, value.of, len(entry.values), "value")
            whole = entry.values[value.of]
            counts = [_product(entry, where, v.shape) for v in (whole, value)]
            if whole.of is not None or whole.dtype != value.dtype or counts[0] != counts[1]:
                raise _wrong(entry.name, f"{where} is no reshape of value {value.of} ({whole.name})")
    if len(entry.outputs) != 1:
        raise _wrong(entry.name, f"has {len(entry.outputs)} outputs, must have one")
    if entry.root(entry.outputs[0]) in entry.inputs or entry.values[entry.outputs[0]].dtype != "f32":
        raise _wrong(entry.name, "the output must be an f32 array that a launch makes")


def _product(entry: Entry, where: str, sizes: Sequence[DimLike]) -> DimLike:
    """The product of sizes, bounded as sizes are: shapes come from anybody."""
    total: DimLike = 1
    for size in sizes:
        try:
            total = total * size
        except ValueError:
            total = MAX_NUMBER
        terms = coefficients(total)
        if len(terms) > MAX_TERMS or any(len(m) > MAX_DEGREE or c >= MAX_NUMBER for m, c in terms.items()):
            raise _wrong(entry.name, f"{where} has 2^53 elements or bytes, or more, or a size of too many terms")
    return total


def _check_arguments(entry: Entry, at: int, call: Call, beside: Beside) -> None:
    where = f"launch {at} ({call.kernel})"
    if beside.kernels is not None and call.kernel not in beside.kernels:
        raise _wrong(entry.name, f"{where}: the code has no such kernel")
    limits = {"value": len(entry.values), "tensor": beside.tensors}
    for argument in call.args:
        if argument.kind in limits:
            assert isinstance(argument.what, int)
            _check_index(entry, argument.what, limits[argument.kind], argument.kind, where)
        elif argument.kind == "cache" and argument.what not in beside.cache:
            raise _wrong(entry.name, f"{where}: there is no cache array {argument.what!r}")
    for argument in call.args[len(call.args) - call.made :]:
        if argument.kind != "value":
            raise _wrong(entry.name, f"{where} makes a {argument.kind}, which only values can be")


def _check_order(entry: Entry) -> None:
    """Every value is made once, before it is read, in a slot that nothing else needs then."""
    last = {entry.root(i): len(entry.calls) for i in entry.outputs}
    for at in range(len(entry.calls) - 1, -1, -1):
        for i in entry.calls[at].reads:
            last.setdefault(entry.root(i), at)
    ready = set(entry.inputs)
    busy: dict[int, int] = {}  # slot -> the value in it
    for at, call in enumerate(entry.calls):
        where = f"launch {at} ({call.kernel})"
        for i in call.reads:
            if entry.root(i) not in ready:
                raise _wrong(entry.name, f"{where} reads value {i} ({entry.values[i].name}), which is not made yet")
        for i in call.makes:
            slot = entry.values[i].slot
            if slot is None:
                raise _wrong(entry.name, f"{where} makes value {i}, which is an input or a reshape")
            if i in ready:
                raise _wrong(entry.name, f"{where} makes value {i} ({entry.values[i].name}) again")
            held = busy.get(slot)
            if held is not None and last.get(held, -1) >= at:
                raise _wrong(entry.name, f"{where} makes value {i} where value {held} is still needed, slot {slot}")
            if held is not None and held in call.makes:
                raise _wrong(entry.name, f"{where} makes values {held} and {i} in one slot, {slot}")
            busy[slot] = i
            ready.add(i)
    for i in entry.outputs:
        if entry.root(i) not in ready:
            raise _wrong(entry.name, f"no launch makes the output, value {i}")
    unmade = [i for i, value in enumerate(entry.values) if value.slot is not None and i not in ready]
    if unmade:
        raise _wrong(entry.name, f"no launch makes value {unmade[0]} ({entry.values[unmade[0]].name})")


def _check_index(entry: Entry, index: int, count: int, kind: str, where: str = "") -> None:
    if index >= count:
        raise _wrong(entry.name, f"{where + ': ' if where else ''}there is no {kind} {index}, only {count}")


def _wrong(entry: str, what: str) -> ArtifactError:
    return ArtifactError(f"step program{': ' + entry if entry else ''}: {what}")
