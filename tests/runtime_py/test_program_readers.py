"""The two readers of a step program: Python's (``fretsaw verify``) and the runtime's accept and refuse the same."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fretsaw.backends.program.entry import StepProgram
from fretsaw.backends.program.serialize import from_bytes, to_bytes, to_json
from fretsaw.backends.program.verify import Beside, verify_program
from fretsaw.ir.errors import ArtifactError
from fretsaw.runtime import Model, RuntimeFailure
from tests.backends.program.small import ENTRY
from tests.runtime_py import packing
from tests.runtime_py.conftest import Tiny
from tests.runtime_py.tiny_program import KERNEL

pytestmark = pytest.mark.native

# Calls of the one kernel that the tiny artifact's code has; nothing runs it.
PROGRAM = StepProgram((replace(ENTRY, calls=tuple(replace(c, kernel=KERNEL) for c in ENTRY.calls)),))
VALUES: list[Any] = [
    0, 1, 2, 5, 7, -1, 2**31, 2**53 - 1, 2**53, 2**63, 1.5, True, None, "", "x", "f32", "f16", "i32", "i8", "T",
    "kernel", [], [0], {}, ["value", 2], ["value", 6], ["int", -(2**63)], ["tensor", 0], ["tensor", 2],
    ["cache", "lens"], ["cache", "lense"], {"T": 40}, {"T": 1}, {"R": 1}, {"": 8}, {"R*T": 3}, {"T*R": 3},
    {"T": 40, "R": 20}, {"T*T*T*T*T*T*T*T*T": 1}, {"T*T*T*T*T": 2**40}, {"KB": 1},
]  # fmt: skip


def places(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value in JSON."""
    if path:
        yield path
    for key, inner in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from places(inner, (*path, key))


def mutant(rng: random.Random, base: Any) -> Any:
    """A copy with one or two changes: a value replaced, left out, moved or taken from elsewhere."""
    data = copy.deepcopy(base)
    for _ in range(rng.choice((1, 1, 2))):
        *way, end = rng.choice(list(places(data)))
        last: Any = end
        at: Any = data
        for step in way:
            at = at[step]
        kind = rng.randrange(5)
        if kind == 0:
            del at[last]
        elif kind == 1 and isinstance(at, list):
            at.insert(rng.randrange(len(at) + 1), copy.deepcopy(at[last]))
        elif kind == 2 and isinstance(at, list):
            other = rng.randrange(len(at))
            at[last], at[other] = at[other], at[last]
        elif isinstance(at[last], int) and kind == 3:
            at[last] += rng.choice((-1, 1))
        else:
            at[last] = copy.deepcopy(rng.choice(VALUES))
    return data


def python_says(section: bytes, manifest: dict[str, object]) -> str:
    """Why the Python reader refuses a section; empty where it takes it."""
    try:
        verify_program(from_bytes(section), replace(Beside.of(manifest), kernels={KERNEL}))
    except ArtifactError as error:
        return error.what
    return ""


def runtime_says(path: Path) -> str:
    try:
        Model(path, threads=1).close()
    except RuntimeFailure as failure:
        return str(failure)
    return ""


@pytest.mark.parametrize("seed", range(4))
def test_both_readers_say_the_same(seed: int, binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    del binary  # its fixture skips when nothing is built
    rng, path = random.Random(seed), tmp_path / "m.fsaw"
    taken = refused = 0
    for _ in range(150):
        section = json.dumps(mutant(rng, to_json(PROGRAM))).encode()
        packing.write(path, tiny.manifest, {**tiny.sections, "program": section})
        python, runtime = python_says(section, tiny.manifest), runtime_says(path)
        assert (python == "") == (runtime == ""), f"Python: {python!r}\nruntime: {runtime!r}\n{section.decode()}"
        taken, refused = taken + (python == ""), refused + (python != "")
    assert taken > 5 and refused > 50


def test_the_program_before_it_is_changed(binary: Path, tiny: Tiny) -> None:
    del binary
    path = tiny.variation(lambda _, sections: sections.update({"program": to_bytes(PROGRAM)}))
    assert runtime_says(path) == "" == python_says(to_bytes(PROGRAM), tiny.manifest)
