"""What a captured graph depends on, so that one that was captured before can be taken again. No torch here."""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fretsaw.frontend.checkpoint import Checkpoint

PACKAGES = ("torch", "transformers", "numpy", "tokenizers")  # whose code runs while a model is captured


def capture_key(checkpoint: Checkpoint) -> str:
    """SHA-256, in hexadecimal, of everything that reaches the graph of ``checkpoint``.

    All bytes of the checkpoint are in it, weights too: whether tied tensors agree is found out while capturing.
    """
    inputs = {
        "checkpoint": checkpoint.digest,
        "python": platform.python_version(),
        "sources": _sources(),
        **{name: _version(name) for name in PACKAGES},
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@cache
def _sources() -> str:
    """A digest of the code that captures, and of the IR that it writes."""
    total = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for folder in ("frontend", "ir"):
        for path in sorted((root / folder).rglob("*.py")):
            total.update(f"{path.relative_to(root).as_posix()}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
