"""Compile and call one PrimFunc; helpers shared by the kernel tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import tirx

from fretsaw.backends.kernel_cache import KernelCache
from fretsaw.backends.tvm.codegen.link import load_kernel
from fretsaw.backends.tvm.codegen.lower import native_module
from fretsaw.backends.tvm.codegen.objects import compile_kernels, kernel_from
from fretsaw.backends.tvm.kernels.isa import V3, V4, Isa

Array = NDArray[Any]


class Built:
    """A compiled kernel that takes NumPy arrays, runs, and returns all of them as they are afterwards."""

    def __init__(self, func: tirx.PrimFunc, isa: Isa = V3) -> None:
        kernel = kernel_from(func, isa)
        code = compile_kernels([kernel], KernelCache()).objects[kernel.key]
        self._call = load_kernel(kernel.name, code)

    def __call__(self, *arrays: Array, scalars: tuple[int, ...] = (), results: int = 0) -> list[Array]:
        """Call with the scalars before the last ``results`` arrays."""
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays]
        first = len(tensors) - results
        self._call(*tensors[:first], *scalars, *tensors[first:])
        return [t.numpy() for t in tensors]


def runnable() -> list[Isa]:
    """The instruction sets that kernels are written for and this machine has."""
    return [V3, V4] if "avx512f" in Path("/proc/cpuinfo").read_text() else [V3]


def assembly(func: tirx.PrimFunc, isa: Isa) -> str:
    """The code of a kernel as text, also for a machine that the tests do not run on."""
    return str(native_module(tvm.IRModule({str(func.attrs["global_symbol"]): func}), isa).inspect_source("asm"))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run TVM's thread pool with ``count`` threads."""
    tvm.get_global_func("runtime.config_threadpool")(1, count)
    yield
    tvm.get_global_func("runtime.config_threadpool")(1, 2)
