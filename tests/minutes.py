"""What the Python tests cost by file, as a pytest plugin: ``python -m pytest -p tests.minutes --minutes FILE``.

CPU seconds (of the test's process and the processes it waited for) and seconds on the clock, summed over a file's
tests with their fixtures. CPU seconds are what a change can be held to: they hardly depend on what else runs.

With several workers the files that took longest in the recorded run (tests/minutes.json) come first, so that none is
left with a long file at the end. ``--within SECONDS`` runs the files that took least in it, as many as took so many CPU
seconds together; files that are new since then are run too.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import defaultdict
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

KEY = "cpu_seconds"
ROOT = Path(__file__).resolve().parents[1]


def cpu_seconds() -> float:
    """Of this process and of those it waited for, since it began."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=Path, metavar="FILE", help="Write seconds by test file to this JSON file.")
    parser.addoption("--within", type=float, metavar="SECONDS", help="Run the files that took least, up to a sum.")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Minutes(config.getoption("--minutes")))
    if (limit := config.getoption("--within")) is not None:
        config.pluginmanager.register(_Within(too_long(recorded(), limit)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist
        seconds = {ROOT / name: cpu for name, cpu in recorded().items()}
        items.sort(key=lambda item: -seconds.get(item.path, 0.0))  # stable: a file's tests stay together, in order


def recorded() -> Mapping[str, float]:
    """CPU seconds by test file of the recorded run."""
    files: Mapping[str, float] = json.loads((ROOT / "tests/minutes.json").read_text(encoding="utf-8"))["files"]
    return files


def too_long(files: Mapping[str, float], limit: float) -> frozenset[Path]:
    """The files that do not fit when those that took least go first."""
    names = sorted(files, key=files.__getitem__)
    sums = itertools.accumulate(files[name] for name in names)
    return frozenset(ROOT / name for name, total in zip(names, sums, strict=True) if total > limit)


class _Within:
    def __init__(self, left_out: frozenset[Path]) -> None:
        self.left_out = left_out

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        return True if collection_path in self.left_out else None

    def pytest_report_header(self) -> str:
        return f"{len(self.left_out)} test files are left out: they take longer than there is time for"


class _Minutes:
    def __init__(self, file: Path | None) -> None:
        self.file, self.began, self.mark = file, time.perf_counter(), cpu_seconds()
        self.cpu: dict[str, float] = defaultdict(float)
        self.clock: dict[str, float] = defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        now = cpu_seconds()
        # What came since the last report: imports of this file's module count for the first of its tests.
        report.user_properties.append((KEY, now - self.mark))
        self.mark = now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.split("::")[0]
        marks = [value for key, value in report.user_properties if key == KEY]
        self.cpu[name] += float(str(marks[-1])) if marks else 0.0
        self.clock[name] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.file is None:
            return
        files = {name: {"cpu": round(self.cpu[name], 2), "clock": round(self.clock[name], 2)} for name in self.cpu}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        total = {"seconds": round(time.perf_counter() - self.began, 1), "files": dict(sorted(files.items()))}
        self.file.write_text(json.dumps(total, indent=1) + "\n", encoding="utf-8")
        terminalreporter.section("CPU seconds by file")
        for name, cpu in sorted(self.cpu.items(), key=lambda item: -item[1])[:15]:
            terminalreporter.write_line(f"{cpu:8.1f}  {name}")
