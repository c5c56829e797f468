"""Run one step of `make test` and write down what it took: python step.py NAME COMMAND...

A line of JSON per step goes to build/minutes/steps.jsonl: seconds on the clock, and CPU seconds of the command and of
all that it waited for. Only where FRETSAW_MINUTES is set, as by `make test`: a step run alone does not belong to
its table. Standard library only: the first steps run before anything is installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

STEPS = Path(__file__).resolve().parents[2] / "build" / "minutes" / "steps.jsonl"


def main(name: str, command: list[str]) -> int:
    """The command's exit status."""
    began, before = time.time(), os.times()
    status = subprocess.run(command, check=False).returncode
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    row = {"step": name, "began": round(began, 2), "clock": round(time.time() - began, 2), "cpu": round(cpu, 2)}
    if os.environ.get("FRETSAW_MINUTES"):
        STEPS.parent.mkdir(parents=True, exist_ok=True)
        with STEPS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
