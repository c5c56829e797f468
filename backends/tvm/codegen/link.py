"""The objects of kernels, linked to one shared object that needs no library but libc and libm."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import tvm
from tvm.support import cc

# No build id and no symbols beyond the exported ones: equal inputs give equal bytes.
LINK_OPTIONS = ["-Wl,--build-id=none", "-Wl,-s"]
# A code section's own symbols are its own, whatever else the process has loaded, and none is left to be found.
CODE_OPTIONS = [*LINK_OPTIONS, "-Wl,-Bsymbolic", "-Wl,--as-needed", "-Wl,-z,defs", "-lm"]

# Kernels report errors by calling a function of TVM's library. Here it is a jump to where the loader says, or nothing.
RAISE = """
    .text
    .p2align 4
    .globl TVMFFIErrorSetRaisedFromCStrParts
    .hidden TVMFFIErrorSetRaisedFromCStrParts
    .type TVMFFIErrorSetRaisedFromCStrParts, @function
TVMFFIErrorSetRaisedFromCStrParts:
    movq fretsaw_raise@GOTPCREL(%rip), %rax
    movq (%rax), %rax
    testq %rax, %rax
    je 1f
    jmpq *%rax
1:  ret
    .size TVMFFIErrorSetRaisedFromCStrParts, . - TVMFFIErrorSetRaisedFromCStrParts

    .bss
    .p2align 3
    .globl fretsaw_raise
    .type fretsaw_raise, @object
fretsaw_raise:
    .zero 8
    .size fretsaw_raise, 8
    .section .note.GNU-stack, "", @progbits
"""


def link_kernels(kernels: Mapping[str, bytes]) -> bytes:
    """A code section (docs/program.md): an ELF shared object that exports the kernels.

    Args:
        kernels: Object by name of the kernel.
    """
    with tempfile.TemporaryDirectory(prefix="fretsaw-") as folder:
        objects = _write(Path(folder), kernels)
        jump = Path(folder) / "raise.s"
        jump.write_text(RAISE)
        path = Path(folder) / "code.so"
        cc.create_shared(str(path), [*objects, str(jump)], options=CODE_OPTIONS)
        return path.read_bytes()


def _write(folder: Path, kernels: Mapping[str, bytes]) -> list[str]:
    """Object files by name; the order in which they are linked is the order of the names."""
    paths = []
    for name in sorted(kernels):
        path = folder / f"{name}.o"
        path.write_bytes(kernels[name])
        paths.append(str(path))
    return paths


def load_kernel(name: str, code: bytes) -> tvm.ffi.Function:
    """A kernel's object as a function of this process."""
    with tempfile.TemporaryDirectory(prefix="fretsaw-") as folder:
        objects = _write(Path(folder), {name: code})
        path = str(Path(folder) / "code.so")
        cc.create_shared(path, objects, options=LINK_OPTIONS)
        return tvm.runtime.load_module(path)[name]  # once loaded, the code needs its file no more
