"""The table of minutes: growth is found by name, a slow machine has slack, and a fast run is no excuse."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fretsaw.tools.dev import minutes, step
from fretsaw.tools.dev.minutes import BUDGET, Run, grown, read_run, table, verdict

BEFORE = Run(600.0, 0.5, {"lint": 20.0, "python": 900.0}, {"tests/a.py": 100.0, "tests/b.py": 10.0})


def test_what_grew_is_named() -> None:
    now = replace(BEFORE, files={"tests/a.py": 160.0, "tests/b.py": 14.0, "tests/new.py": 40.0})
    lines = verdict(now, BEFORE)
    assert lines[1:] == ["tests/a.py: 100 -> 160 CPU seconds", "tests/new.py: 0 -> 40 CPU seconds"]
    assert verdict(BEFORE, BEFORE) == []


def test_a_slow_machine_has_slack_and_a_fast_one_does_not_lose_any() -> None:
    slow = Run(BUDGET * 1.9, 1.0, {"python": 1800.0, "lint": 40.0}, {"tests/a.py": 200.0, "tests/b.py": 20.0})
    assert verdict(slow, BEFORE) == []
    assert verdict(replace(slow, probe=0.5), BEFORE) != []
    assert grown({"x": 10.0}, {}, 1.0) == []  # small files may come
    assert verdict(replace(BEFORE, probe=0.25), BEFORE) == []


def test_over_budget_names_the_longest_where_nothing_grew() -> None:
    lines = verdict(replace(BEFORE, clock=BUDGET + 60), BEFORE)
    assert "31.0 minutes, the budget is 30.0" in lines[0] and "tests/a.py" in lines[1]


def test_steps_are_written_down_and_pass_their_status_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "STEPS", tmp_path / "m" / "steps.jsonl")
    monkeypatch.delenv("FRETSAW_MINUTES", raising=False)  # `make test` sets it for its own steps
    busy = "import time; t = time.process_time()\nwhile time.process_time() < t + 0.2: pass"
    assert step.main("alone", [sys.executable, "-c", ""]) == 0
    assert not (tmp_path / "m").exists()
    monkeypatch.setenv("FRETSAW_MINUTES", "1")
    assert step.main("busy", [sys.executable, "-c", busy]) == 0
    assert step.main("fails", [sys.executable, "-c", "raise SystemExit(3)"]) == 3
    (tmp_path / "m/python.json").write_text(json.dumps({"files": {"tests/a.py": {"cpu": 2.5, "clock": 3.0}}}))
    run = read_run(tmp_path / "m")
    assert list(run.steps) == ["busy", "fails"] and 0.2 <= run.steps["busy"] <= run.clock + 0.2
    assert "tests/a.py" in table(run) and "busy" in table(run)


def test_the_plugin_counts_processes_that_a_test_starts(tmp_path: Path) -> None:
    test = tmp_path / "test_it.py"
    burn = "t = __import__('time'); e = t.process_time() + 0.4\nwhile t.process_time() < e: pass"
    test.write_text(f"import subprocess, sys\ndef test_it():\n    subprocess.run([sys.executable, '-c', {burn!r}])\n")
    out = tmp_path / "m.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.minutes", "--minutes", str(out), "-c", "/dev/null"]
    done = subprocess.run([*command, str(test)], cwd=minutes.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(out.read_text())["files"].values()
    assert 0.4 <= row["cpu"] < 5
