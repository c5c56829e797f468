"""The section: what is written is read back, and what is out of bounds or of another type is named."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from fretsaw.backends.program import serialize
from fretsaw.backends.program.assemble import assemble
from fretsaw.backends.program.options import ProgramOptions
from fretsaw.backends.program.plan import plan
from fretsaw.backends.program.serialize import from_bytes, to_bytes, to_json
from fretsaw.backends.program.verify import CACHE, Beside, verify_program
from fretsaw.ir.errors import ArtifactError
from tests.backends.program.conftest import Packed
from tests.backends.program.small import PROGRAM

GOOD = to_json(PROGRAM)


def test_what_is_written_is_read_back() -> None:
    assert from_bytes(to_bytes(PROGRAM)) == PROGRAM
    assert to_bytes(from_bytes(to_bytes(PROGRAM))) == to_bytes(PROGRAM)
    (entry,) = json.loads(to_bytes(PROGRAM))["entries"]
    assert entry["slots"] == [{"T": 40}, {"T": 32, "": 8}, {"R": 20}]
    assert entry["values"][4] == {"name": "o.flat", "dtype": "f32", "shape": [{"T": 1}, 8], "of": 3}
    assert entry["launches"][1] == {
        "kernel": "attend",
        "args": [["value", 2], ["cache", "k_pages"], ["cache", "cu"], ["int", -3], ["value", 3]],
        "made": 1,
    }


@pytest.mark.parametrize("name", ["llama", "mixtral", "bert"])
def test_programs_of_models(name: str, packed: Packed) -> None:
    made = plan(packed(name)[0], ProgramOptions())
    program = assemble({"step": made})
    assert from_bytes(to_bytes(program)) == program
    kernels = {launch.spec.name for launch in made.launches}
    verify_program(
        program, Beside(len(made.tensors), (*CACHE, "k_pages", "v_pages") if made.cached else (), ("step",), kernels)
    )


def edited(path: str, change: object) -> bytes:
    """The good program with another value at ``path``, or without one."""
    data: Any = copy.deepcopy(GOOD)
    at: Any = data
    *steps, last = path.split(".")
    for step in steps:
        at = at[int(step)] if isinstance(at, list) else at[step]
    key = int(last) if isinstance(at, list) else last
    if change is None:
        del at[key]
    else:
        at[key] = change
    return json.dumps(data).encode()


E = "entries.0"
ABSENT = None


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ("version", 2, "version is 2, this reader knows 1"),
        ("version", ABSENT, "version must be a whole number"),
        ("entries", {}, "entries must be a list"),
        ("entries", [{}] * 17, "entries has 17 items, more than 16"),
        ("entries.0", [], "entries[0] must be an object"),
        (f"{E}.name", "", "entries[0].name must be text of 1 to 256 bytes"),
        (f"{E}.name", "é" * 129, "entries[0].name must be text of 1 to 256 bytes"),
        (f"{E}.name", 3, "entries[0].name must be text"),
        (f"{E}.symbols", ["", "R", "T"], "entries[0].symbols[0] must be text"),
        (f"{E}.symbols", [f"T{i:02}" for i in range(17)], "entries[0].symbols has 17 items, more than 16"),
        (f"{E}.symbols", ["R"], "'T' is no product of at most 8 of the entry's symbols"),
        (f"{E}.inputs", ABSENT, "entries[0].inputs must be a list"),
        (f"{E}.inputs.0", -1, "entries[0].inputs[0] must be a whole number from 0 to below 2^53"),
        (f"{E}.inputs.0", True, "entries[0].inputs[0] must be a whole number"),
        (f"{E}.inputs.0", 1.0, "entries[0].inputs[0] must be a whole number"),
        (f"{E}.slots.0", {"T": -1}, "entries[0].slots[0].T must be a whole number"),
        (f"{E}.slots.0", {"T": 2**53}, "entries[0].slots[0].T must be a whole number from 0 to below 2^53"),
        (f"{E}.slots.0", {"*".join("T" * 9): 1}, "is no product of at most 8 of"),
        (f"{E}.slots.0", {"Q": 1}, "'Q' is no product of at most 8 of the entry's symbols"),
        (f"{E}.slots.0", {"T*": 1}, "is no product"),
        (f"{E}.slots.0", {"R*T": 2**52, "T*R": 2**52}, "entries[0].slots[0].T*R must be below 2^53"),
        (f"{E}.slots.0", {"*".join(["T"] * (i % 8) + ["X"] * i): 1 for i in range(65)}, "has 65 terms, more than 64"),
        (f"{E}.slots.0", "T", "entries[0].slots[0] must be a whole number"),
        (f"{E}.slots", [0] * 65537, "entries[0].slots has 65537 items, more than 65536"),
        (f"{E}.values.2.dtype", "f64", "values[2].dtype must be one of f32, f16, i32, i64, i8, is 'f64'"),
        (f"{E}.values.2.dtype", ["f32"], "values[2].dtype must be one of"),
        (f"{E}.values.2.shape", [1] * 9, "values[2].shape has 9 items, more than 8"),
        (f"{E}.values.2.slot", None, "no launch"),
        (f"{E}.values.2.slot", "0", "values[2].slot must be a whole number"),
        (f"{E}.values.2.name", ABSENT, "values[2].name must be text"),
        (f"{E}.launches.0.kernel", "", "launches[0].kernel must be text"),
        (f"{E}.launches.0.made", 4, "launches[0].made is 4, more than the 3 arguments"),
        (f"{E}.launches.0.made", ABSENT, "launches[0].made must be a whole number"),
        (f"{E}.launches.0.args", [["int", 0]] * 65, "launches[0].args has 65 items, more than 64"),
        (f"{E}.launches.0.args.0", ["weight", 0], "args[0] must be a pair whose first is one of value, tensor, cache"),
        (f"{E}.launches.0.args.0", ["value"], "args[0] must be a pair"),
        (f"{E}.launches.0.args.0", [["value"], 0], "args[0] must be a pair"),
        (f"{E}.launches.0.args.0", ["value", 0, 0], "args[0] has 3 items, more than 2"),
        (f"{E}.launches.0.args.0", ["value", "0"], "args[0] must be a whole number"),
        (f"{E}.launches.0.args.0", ["cache", 0], "args[0] must be text"),
        (f"{E}.launches.0.args.0", ["int", 2**63], "args[0] must be a whole number of 64 bits"),
        (f"{E}.launches.0.args.0", ["int", True], "args[0] must be a whole number of 64 bits"),
    ],
)
def test_what_is_out_of_bounds_is_named(path: str, change: object, words: str) -> None:
    if words == "no launch":  # a place may be absent here, which `verify` refuses
        assert from_bytes(edited(path, change)).entries[0].values[2].slot is None
        return
    with pytest.raises(ArtifactError) as caught:
        from_bytes(edited(path, change))
    assert words in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"\xff", b'{"version": NaN}', b"3"])
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="step program: program (is not JSON|must be an object)"):
        from_bytes(data)


def test_a_section_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialize, "MAX_BYTES", 100)
    with pytest.raises(ArtifactError, match=f"has {len(to_bytes(PROGRAM))} bytes, more than 100"):
        from_bytes(to_bytes(PROGRAM))
