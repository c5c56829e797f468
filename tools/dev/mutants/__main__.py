"""Plant deliberate faults, one at a time, and see whether the tests that ought to notice do.

    python -m fretsaw.tools.dev.mutants [--only NAME] [--tree DIR] [--python EXE] [--work DIR] [--json FILE]

A suite that was made faster must not have become blind: this is the check. Faults are data, in `faults.toml`. They
are planted in a copy of the tree, never in the tree itself; its Python imports itself, not the installed package, and
its C++ has a build folder of its own. Caches of compiled code lie in the copy too and live through the whole run, so
one that hides a changed source shows as a fault that is missed.

Exit status: 0 when every fault is found, 1 when one is missed, 2 when the check itself cannot be trusted: a fault
no longer fits its file, or the tests fail, skip or select nothing before anything is planted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fretsaw.tools.dev.mutants.faults import Fault, Untrusted, load
from fretsaw.tools.dev.mutants.scratch import Scratch

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Verdict:
    """What became of one fault; ``found_by`` is the first test that failed, None when all passed."""

    name: str
    file: str
    imitates: str
    found_by: str | None
    seconds: float
    absent: tuple[str, ...] = ()  # test files that the tree does not have


def check_baseline(scratch: Scratch, faults: Sequence[Fault]) -> float:
    """Run every test that will be asked, with nothing planted; the seconds that it took.

    A test file that the tree does not have is left out: an older tree may be judged by newer faults.

    Raises:
        Untrusted: something fails, is skipped or selects nothing: its verdict on a fault would mean nothing.
    """
    start = time.monotonic()
    scratch.check_imports(f.file for f in faults if not f.native)
    tests = sorted({t for f in faults for t in _present(scratch.root, f.tests)})
    if any(f.native for f in faults):
        for f in faults:
            if f.native:
                (scratch.root / f.file).touch()  # an earlier run may have ended with the fault in the object
        scratch.compile()
    for fault in faults:
        for case in fault.cases:
            status, out = scratch.doctest([case])
            ran = re.search(r"test cases:\s+(\d+) \|", out)
            if status or ran is None or ran[1] == "0":
                raise Untrusted(f"C++ tests '{case}' fail, or are none, with nothing planted:\n{out[-4000:]}")
    if tests:
        status, out = scratch.pytest(tests)
        if status or re.search(r"^SKIPPED ", out, re.M):
            raise Untrusted(f"tests fail or are skipped with nothing planted:\n{out[-4000:]}")
    return time.monotonic() - start


def _present(root: Path, tests: Iterable[str]) -> list[str]:
    return [t for t in tests if (root / t.partition("::")[0]).exists()]


def judge(scratch: Scratch, fault: Fault) -> Verdict:
    """Plant one fault and run its tests until one fails."""
    start, tests = time.monotonic(), _present(scratch.root, fault.tests)
    found: str | None = None
    with scratch.planted(fault):
        if fault.native:
            scratch.compile()
        if fault.cases:
            status, out = scratch.doctest(fault.cases)
            first = re.search(r"^TEST CASE:\s+(.*)$", out, re.M)
            found = None if status == 0 else f"fretsaw-tests: {first[1] if first else f'status {status}'}"
        if found is None and tests:
            status, out = scratch.pytest(tests)
            first = re.search(r"^(?:FAILED|ERROR) (\S+?::.*?|\S+)(?: - .*)?$", out, re.M)
            found = None if status == 0 else first[1] if first else f"pytest: status {status}"
    absent = tuple(t for t in fault.tests if t not in tests)
    return Verdict(fault.name, fault.file, fault.imitates, found, round(time.monotonic() - start, 1), absent)


def row(verdict: Verdict, width: int, files: int) -> str:
    """One line of the table."""
    found = verdict.found_by or "MISSED" + "".join(f" (there is no {t})" for t in verdict.absent)
    return f"{verdict.name:{width}}  {verdict.file:{files}}  {verdict.seconds:6.1f} s  {found}"


def check(faults: Sequence[Fault], scratch: Scratch, result: Path | None) -> int:
    """Judge all faults, print the table line by line, and return the exit status."""
    seconds = check_baseline(scratch, faults)
    print(f"nothing planted: tests pass, {seconds:.1f} s", flush=True)
    width, files = (max(len(text) for text in texts) for texts in zip(*((f.name, f.file) for f in faults), strict=True))
    verdicts = []
    for fault in faults:
        verdicts.append(judge(scratch, fault))
        print(row(verdicts[-1], width, files), flush=True)
        if result is not None:  # after each fault: an interrupted run has told what it knew
            table = {"baseline_seconds": round(seconds, 1), "faults": [asdict(v) for v in verdicts]}
            result.write_text(json.dumps(table, indent=1) + "\n")
    missed = [v.name for v in verdicts if v.found_by is None]
    total = seconds + sum(v.seconds for v in verdicts)
    print(
        f"{len(verdicts) - len(missed)} of {len(verdicts)} found, {total:.0f} s"
        + "".join(f"\nMISSED {m}" for m in missed)
    )
    return int(bool(missed))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status; see the top of this file."""
    parser = argparse.ArgumentParser(description="Plant deliberate faults and see whether tests notice.")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to copy (default: this one)")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with the tree's dependencies")
    parser.add_argument("--only", action="append", metavar="NAME", help="this fault alone; may be repeated")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the copy and its build here, for the next run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table here as well")
    parser.add_argument("--list", action="store_true", help="print the faults and what they imitate")
    options = parser.parse_args(arguments)
    try:
        faults = [f for f in load() if not options.only or f.name in options.only]
        if unknown := set(options.only or ()) - {f.name for f in faults}:
            raise Untrusted(f"there is no fault {', '.join(sorted(unknown))}; see --list")
        if options.list:
            print("\n".join(f"{f.name:24} {f.file:40} {f.imitates}" for f in faults))
            return 0
        tree = options.tree.resolve()
        for fault in faults:  # all of them before anything is built
            fault.planted((tree / fault.file).read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
            work = (options.work or Path(temporary)).resolve()
            work.mkdir(parents=True, exist_ok=True)
            return check(faults, Scratch(tree, work, _absolute(options.python), options.jobs), options.json)
    except Untrusted as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2


def _absolute(python: str) -> str:
    """The interpreter by its full name, its links kept: a virtual environment is known by them."""
    return os.path.abspath(shutil.which(python) or python)


if __name__ == "__main__":
    sys.exit(main())
