"""Where no bar is drawn long work says what it does, and says nothing where nobody wants to hear."""

from __future__ import annotations

import pytest

from fretsaw.tools.progress import Lines
from fretsaw.tools.reporter import Reporter


def lines(shown: bool) -> tuple[Lines, list[str], list[str], list[float]]:
    bar: list[str] = []
    written: list[str] = []
    now = [5.0]
    return Lines("search plan", bar.append, written.append, shown, lambda: now[0]), bar, written, now


def test_a_line_a_stage_and_one_now_and_then() -> None:
    made, bar, written, now = lines(shown=True)
    made.stage("survey")
    for second in range(0, 100, 7):
        now[0] = 5.0 + second
        made.note(f"layer {second // 7}")
    now[0] = 106.4
    made.stage("done")
    assert written == [
        "search plan, 0 s: survey", "search plan, 35 s: layer 5", "search plan, 70 s: layer 10",
        "search plan, 101 s: done",
    ]  # fmt: skip
    assert bar == ["survey", *(f"layer {n}" for n in range(15)), "done"]


def test_a_bar_or_quiet_writes_none() -> None:
    made, bar, written, now = lines(shown=False)
    made.stage("survey")
    now[0] = 1000.0
    made.note("layer 1")
    assert written == [] and bar == ["survey", "layer 1"]


def test_lines_are_for_what_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert Reporter().plain and not Reporter(quiet=True).plain
    Reporter().line("[bold] a line that is longer than eighty columns is not wrapped, since it is read by programs too")
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.startswith("[bold] a line")
