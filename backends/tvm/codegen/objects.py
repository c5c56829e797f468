"""Objects of kernels: from the cache where they exist, compiled side by side where they do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache

from tvm import tirx

from fretsaw.backends.kernel_cache import KernelCache
from fretsaw.backends.program.steps import KernelSpec
from fretsaw.backends.tvm.codegen.digest import kernel_digest
from fretsaw.backends.tvm.codegen.lower import compile_object
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.registry import build_kernel


@dataclass(frozen=True)
class Kernel:
    """One kernel for one instruction set: its TIR, how long that is, and the key that its object is kept under."""

    name: str
    func: tirx.PrimFunc
    isa: Isa
    lines: int
    key: str


@dataclass(frozen=True)
class Compiled:
    """Objects by key; how many of them were compiled, and in how many seconds each (none where the cache had all)."""

    objects: dict[str, bytes]
    seconds: dict[str, float]


@lru_cache(maxsize=1024)
def kernel_of(spec: KernelSpec, isa: Isa) -> Kernel:
    """The kernel that a spec stands for. Equal specs are written, printed and digested once in a process."""
    return kernel_from(build_kernel(spec, isa), isa)


def kernel_from(func: tirx.PrimFunc, isa: Isa) -> Kernel:
    """A kernel that is there already."""
    text = func.script()
    return Kernel(str(func.attrs["global_symbol"]), func, isa, text.count("\n"), kernel_digest(text, isa))


def compile_kernels(
    kernels: Sequence[Kernel], cache: KernelCache, jobs: int = 1, progress: Callable[[str], None] | None = None
) -> Compiled:
    """Objects of all ``kernels``.

    Args:
        jobs: Kernels compiled at the same time. TVM and LLVM run outside of Python's lock, so threads are enough.
        progress: Told how many are done.
    """
    tell = progress or (lambda _: None)
    wanted = {kernel.key: kernel for kernel in kernels}
    found = {key: data for key in wanted if (data := cache.get(key)) is not None}
    # The longest first, so that no thread is left with one long kernel at the end.
    missing = sorted((k for k in wanted.values() if k.key not in found), key=lambda k: -k.lines)
    seconds: dict[str, float] = {}

    def make(kernel: Kernel) -> tuple[str, bytes]:
        started = time.perf_counter()
        data = compile_object(kernel.func, kernel.isa)
        cache.put(kernel.key, data)
        seconds[kernel.key] = time.perf_counter() - started
        return kernel.key, data

    if jobs == 1:
        for kernel in missing:
            tell(f"compiling kernels: {len(seconds)} of {len(missing)}")
            found.update([make(kernel)])
    elif missing:
        pool = ThreadPoolExecutor(min(jobs, len(missing)), thread_name_prefix="fretsaw-codegen")
        try:
            for done in as_completed([pool.submit(make, kernel) for kernel in missing]):
                found.update([done.result()])
                tell(f"compiling kernels: {len(seconds)} of {len(missing)}")
        finally:
            pool.shutdown(cancel_futures=True)  # an error or Ctrl-C waits for the kernels in work, for no others
    return Compiled(found, seconds)
