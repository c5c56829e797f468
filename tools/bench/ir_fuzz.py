"""Fuzz the IR: generated graphs round trip and verify; damaged graphs and texts end in our own errors, never a crash.

    python -m fretsaw.tools.bench.ir_fuzz --count 100000 --seed 0 [--mutations 2] [--out tests/regressions/ir]

Case i has the seed ``seed + i``. A case that fails is written to ``--out`` as a file for tests/ir/test_fuzz.py.
Exit code 1 when any case failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from fretsaw.tools.fuzz.properties import Broken, run_case


def main() -> int:
    """Run the cases; one line of numbers at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutations", type=int, default=2, help="damaged graphs, and damaged texts, per graph")
    parser.add_argument("--out", type=Path, default=Path("tests/regressions/ir"))
    options = parser.parse_args()
    start, failed = time.perf_counter(), 0
    accepted = read = mutations = 0
    for i in range(options.count):
        try:
            a, r, m = run_case(options.seed + i, options.mutations)
            accepted, read, mutations = accepted + a, read + r, mutations + m
        except Broken as error:
            failed += 1
            save(options.out, options.seed + i, error)
            print(f"\nseed {options.seed + i}: {error}", file=sys.stderr)
        if i % 500 == 499:
            rate = (i + 1) / (time.perf_counter() - start)
            print(
                f"\r{i + 1}/{options.count} graphs, {failed} failed, {rate:.0f}/s", end="", file=sys.stderr, flush=True
            )
    seconds = time.perf_counter() - start
    print(
        f"\n{options.count} graphs (seeds {options.seed} to {options.seed + options.count - 1}), {mutations} mutations:"
        f" {failed} failed; {accepted} damaged graphs still well formed, {read} damaged texts still read;"
        f" {seconds:.0f} s"
    )
    return 1 if failed else 0


def save(folder: Path, seed: int, error: Broken) -> None:
    """A failing case as a file: its seed, what failed, the text."""
    folder.mkdir(parents=True, exist_ok=True)
    case = {"seed": seed, "what": str(error), "text": error.text}
    (folder / f"seed_{seed}.json").write_text(json.dumps(case, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
