"""Drive the C++ tokenizer from Python: one process of fretsaw-tokenizer-tool, JSON lines both ways."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]


def tool_path() -> Path | None:
    """Return the tool's path in FRETSAW_BUILD or build/cmake, or None when it is not built."""
    build = Path(os.environ.get("FRETSAW_BUILD", ROOT / "build/cmake"))
    found = [p for p in (build / "fretsaw-tokenizer-tool", build / "bin/fretsaw-tokenizer-tool") if p.exists()]
    return found[0] if found else None


class Tool:
    """A running tool; ``ask`` sends one request and returns its answer."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Tool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=30)

    def ask(self, op: str, **fields: object) -> dict[str, object]:
        """Return the answer to one request; {"error", "status"} when the library refused it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the tokenizer tool died with status {self.process.wait()}")
        answer: dict[str, object] = json.loads(line)
        return answer
