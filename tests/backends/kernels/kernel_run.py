"""Compile and call one PrimFunc; helpers shared by the kernel tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import tirx

from fretsaw.backends.tvm.kernels.isa import V3

Array = NDArray[Any]


class Built:
    """A compiled kernel that takes NumPy arrays, runs, and returns all of them as they are afterwards."""

    def __init__(self, func: tirx.PrimFunc) -> None:
        name = str(func.attrs["global_symbol"])
        self._call = tvm.compile(tvm.IRModule({name: func}), target=tvm.target.Target(V3.target))[name]

    def __call__(self, *arrays: Array, scalars: tuple[int, ...] = (), results: int = 0) -> list[Array]:
        """Call with the scalars before the last ``results`` arrays."""
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays]
        first = len(tensors) - results
        self._call(*tensors[:first], *scalars, *tensors[first:])
        return [t.numpy() for t in tensors]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run TVM's thread pool with ``count`` threads."""
    tvm.get_global_func("runtime.config_threadpool")(1, count)
    yield
    tvm.get_global_func("runtime.config_threadpool")(1, 2)
