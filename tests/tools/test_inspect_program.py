"""``fretsaw inspect --program``: the launches of a step, as text and as data; what cannot be run is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fretsaw.backends.artifact import write_container
from fretsaw.backends.program.entry import StepProgram
from fretsaw.backends.program.serialize import from_bytes, to_bytes
from fretsaw.backends.program.text import to_text
from fretsaw.tools import cli
from tests.backends.program.small import ENTRY, PROGRAM, VALUES
from tests.tools.test_cli import MANIFEST

Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an artifact with this program."""

    def make(program: bytes) -> Path:
        path = tmp_path / "model.fsaw"
        sections = [("program", [program]), ("code/llvm-x86-64-v3", [b"no ELF file"]), ("weights", [bytes(64)])]
        write_container(path, MANIFEST, sections)
        return path

    return make


def test_text(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", str(write(to_bytes(PROGRAM))), "--program"]) == 0
    assert capsys.readouterr().out == to_text(PROGRAM, ["w"])


def test_json(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", str(write(to_bytes(PROGRAM))), "--program", "--json"]) == 0
    out = capsys.readouterr().out
    assert from_bytes(out.encode()) == PROGRAM and json.loads(out)["version"] == 1


def test_a_program_that_could_not_be_run_is_refused(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = StepProgram((replace(ENTRY, values=(*VALUES[:2], replace(VALUES[2], slot=2), *VALUES[3:])),))
    assert cli.run(["inspect", str(write(to_bytes(wrong))), "--program"]) == 7
    assert "step program: step: value 2 (h) of 32*T bytes does not fit slot 2" in capsys.readouterr().err
    assert cli.run(["inspect", str(write(b"{}")), "--program"]) == 7
    assert "step program: version must be a whole number" in capsys.readouterr().err
    renamed = StepProgram((replace(ENTRY, name="walk"),))
    assert cli.run(["inspect", str(write(to_bytes(renamed))), "--program"]) == 7
    assert "the manifest names the entry step, which is not there" in capsys.readouterr().err


def test_what_it_goes_with(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(to_bytes(PROGRAM)))
    for other in (["--attention"], ["--html", "x.html"], ["--pass", "cse"], ["--ir", "packed"], ["--dot", "packed"]):
        assert cli.run(["inspect", path, "--program", *other]) == 2
        assert "--program goes with --json alone" in capsys.readouterr().err
    text = tmp_path / "graph.fir"
    text.write_text("graph @tiny() -> () {\n}\n")
    assert cli.run(["inspect", str(text), "--program"]) == 2
    assert "is the text of one graph; --program shows artifacts" in capsys.readouterr().err
