"""The key of a compiled kernel: a digest of everything that reaches its code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import tvm

from fretsaw.backends.tvm.codegen import lower
from fretsaw.backends.tvm.kernels.isa import Isa


@cache
def tools() -> Mapping[str, str | int]:
    """What compiles, apart from the kernel: versions, and the file that says how."""
    compilers = sorted(Path(tvm.__file__).parent.glob("lib/libtvm*.so"))
    return {
        "fretsaw": _version("fretsaw"),
        "tvm": _version("apache-tvm"),
        "tvm_ffi": _version("apache-tvm-ffi"),
        "llvm": int(tvm.target.codegen.llvm_version_major()),
        # A build of one's own has the wheel's version, and other bytes.
        "libraries": " ".join(f"{p.name}={p.stat().st_size}" for p in compilers),
        "lowering": hashlib.sha256(Path(lower.__file__).read_bytes()).hexdigest(),
    }


def kernel_digest(tir: str, isa: Isa, made_by: Mapping[str, str | int] | None = None) -> str:
    """SHA-256, in hexadecimal, of a kernel's TIR, its target and the tools that compile it.

    Args:
        tir: The kernel's text, ``func.script()``. It has every attribute, type and constant (floats with 17 digits),
            and names variables by their order.
    """
    inputs = {"tir": tir, "target": dict(isa.target), **(tools() if made_by is None else made_by)}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
