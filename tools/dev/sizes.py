"""Print lines per folder, the op count, and files over the house limits; fail on files over 500 lines."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ASK, LIMIT = 300, 500  # lines: past the first ask whether a file is two ideas, past the second it is
ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Exit status: 1 when a source file is over ``LIMIT`` lines."""
    listed = subprocess.run(["git", "ls-files", "*.py", "*.cc", "*.h"], cwd=ROOT, capture_output=True, text=True)
    sizes = {name: len((ROOT / name).read_text().splitlines()) for name in listed.stdout.split()}
    folders: Counter[str] = Counter()
    for name, lines in sizes.items():
        folders[name.split("/")[0] if "/" in name else "."] += lines
    print("lines  " + "  ".join(f"{folder} {lines:,}" for folder, lines in sorted(folders.items())))
    ops = sum(len(re.findall(r"^define_op\(", p.read_text(), re.M)) for p in (ROOT / "ir/ops").glob("*.py"))
    print(f"ops    {ops}")
    over = {name: lines for name, lines in sizes.items() if lines > ASK}
    for name, lines in sorted(over.items(), key=lambda item: -item[1]):
        print(f"{'TOO LONG' if lines > LIMIT else 'long':8} {name}: {lines} lines")
    return int(any(lines > LIMIT for lines in over.values()))


if __name__ == "__main__":
    sys.exit(main())
