"""The table of minutes: what `make test` took by step and by test file, and what grew.

    python -m fretsaw.tools.dev.minutes            # print the table of the last run
    python -m fretsaw.tools.dev.minutes --check    # also fail where it is over budget, and name what grew
    python -m fretsaw.tools.dev.minutes --record   # make the last run the one that later runs are compared with

The record, tests/minutes.json, holds CPU seconds of a run with an empty kernel cache and how fast its machine was. What
is compared is scaled by the speed of the machine that runs now, measured by the same probe.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MINUTES, RECORD = ROOT / "build" / "minutes", ROOT / "tests" / "minutes.json"
BUDGET = 30 * 60.0  # seconds on the clock, on two cores, with an empty kernel cache, everything included
GROWTH, LEAST = 1.5, 15.0  # a step or file has grown that takes this many times as long, and this many CPU seconds more


@dataclass(frozen=True)
class Run:
    """One run of `make test`.

    Args:
        clock: Seconds from the first step's begin to the last one's end.
        probe: CPU seconds of the probe: the machine's speed.
        steps, files: CPU seconds by name.
        clocks: Seconds on the clock by step.
    """

    clock: float
    probe: float
    steps: Mapping[str, float]
    files: Mapping[str, float]
    clocks: Mapping[str, float] = field(default_factory=dict)


def probe() -> float:
    """CPU seconds of a fixed piece of work, the best of three: bytecode, hashing, and matrix products."""
    a = np.random.default_rng(0).standard_normal((256, 256))

    def once() -> float:
        began = time.process_time()
        total = sum(i * i % 7 for i in range(1_500_000))
        hashlib.sha256(bytes(60_000_000)).digest()
        for _ in range(40):
            total += (a @ a)[0, 0] > 0
        return time.process_time() - began

    return round(min(once() for _ in range(3)), 3)


def read_run(folder: Path) -> Run:
    """The last run of `make test`, as its steps and its tests wrote it down.

    Raises:
        FileNotFoundError: there was none.
    """
    rows = [json.loads(line) for line in (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()]
    tests = folder / "python.json"
    files = json.loads(tests.read_text(encoding="utf-8"))["files"] if tests.exists() else {}
    clock = max(r["began"] + r["clock"] for r in rows) - min(r["began"] for r in rows)
    steps: dict[str, float] = {}
    clocks: dict[str, float] = {}
    for row in rows:  # a step that two targets need runs again, with nothing left to do
        steps[row["step"]] = round(steps.get(row["step"], 0.0) + row["cpu"], 2)
        clocks[row["step"]] = round(clocks.get(row["step"], 0.0) + row["clock"], 2)
    return Run(round(clock, 1), probe(), steps, {n: f["cpu"] for n, f in files.items()}, clocks)


def grown(now: Mapping[str, float], before: Mapping[str, float], speed: float) -> list[tuple[str, float, float]]:
    """(name, CPU seconds then as this machine would take them, CPU seconds now) of what grew, most first.

    What has no record counts from zero.
    """
    rows = [(name, before.get(name, 0.0) * speed, cpu) for name, cpu in now.items()]
    rows = [row for row in rows if row[2] > GROWTH * row[1] and row[2] - row[1] > LEAST]
    return sorted(rows, key=lambda row: row[1] - row[2])


def slack(run: Run, record: Run) -> float:
    """How many times as slow as the record's this machine is; one for a faster machine."""
    return max(1.0, run.probe / record.probe)


def verdict(run: Run, record: Run) -> list[str]:
    """Lines that say whether the run is over budget, and what grew; none where there is nothing to say."""
    speed = slack(run, record)
    names = {**run.steps, **run.files}, {**record.steps, **record.files}
    rows = grown(*names, speed)
    lines = [f"{name}: {then:.0f} -> {now:.0f} CPU seconds" for name, then, now in rows]
    if run.clock > BUDGET * speed:
        most = lines or [
            f"nothing grew by itself; the longest is {max(run.files or run.steps, key=names[0].__getitem__)}"
        ]
        return [f"{run.clock / 60:.1f} minutes, the budget is {BUDGET * speed / 60:.1f} on this machine", *most]
    return [f"grew since the record in {RECORD.name}", *lines] if lines else []


def table(run: Run, rows: int = 15) -> str:
    """Steps in order, then the test files that take most."""
    lines = [f"{'CPU s':>8} {'clock s':>8}  step"]
    lines += [f"{cpu:8.1f} {run.clocks.get(name, 0.0):8.1f}  {name}" for name, cpu in run.steps.items()]
    lines += [f"{sum(run.steps.values()):8.1f} {run.clock:8.1f}  all ({run.clock / 60:.1f} minutes)", ""]
    lines += [f"{'CPU s':>8}  test file ({len(run.files)}, {sum(run.files.values()):.0f} CPU seconds)"]
    longest = sorted(run.files.items(), key=lambda item: -item[1])[:rows]
    return "\n".join([*lines, *(f"{cpu:8.1f}  {name}" for name, cpu in longest)])


def main(argv: list[str] | None = None) -> int:
    """Exit status: 1 when a check fails, 2 when there is nothing to show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="fail where the run is over budget")
    parser.add_argument("--record", action="store_true", help="write the record from the last run")
    args = parser.parse_args(argv)
    try:
        run = read_run(MINUTES)
    except FileNotFoundError:
        print("no run to show: `make test` writes build/minutes", file=sys.stderr)
        return 2
    print(table(run))
    if args.record:
        RECORD.write_text(json.dumps(asdict(run), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    before = Run(**json.loads(RECORD.read_text(encoding="utf-8")))
    wrong = verdict(run, before)
    if not wrong:
        print(f"\nwithin the budget of {BUDGET / 60:.0f} minutes; nothing grew since the record")
        return 0
    print("\n" + "\n  ".join(wrong))
    # Growth within the budget is said, and is for people to judge.
    return int(args.check and run.clock > BUDGET * slack(run, before))


if __name__ == "__main__":
    sys.exit(main())
