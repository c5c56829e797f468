"""Execute a step program as the artifact carries it: the section's bytes, the code's bytes, arrays. Through ctypes, as
the runtime does it: kernels are called by their C interface, what they ask for is filled in from TVM's thread pool.

The workspace is filled with NaN before every step, so that whatever is read before it is written shows.
"""

from __future__ import annotations

import ctypes
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tvm
from numpy.typing import NDArray

from fretsaw.backends.program.entry import SLOT_ALIGNMENT, Argument, Entry
from fretsaw.backends.program.serialize import from_bytes
from fretsaw.ir.dims import evaluate

NUMPY = {"f32": np.float32, "f16": np.float16, "i32": np.int32, "i64": np.int64, "i8": np.int8}
POINTERS = {
    "__TVMBackendParallelLaunch": "TVMBackendParallelLaunch",
    "__TVMBackendAllocWorkspace": "TVMBackendAllocWorkspace",
    "__TVMBackendFreeWorkspace": "TVMBackendFreeWorkspace",
}
CODES = {"i": 0, "u": 1, "f": 2}  # DLPack's, by NumPy's kind
Raise = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int32)


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


class Any(ctypes.Structure):
    _fields_ = [("type_index", ctypes.c_int32), ("padding", ctypes.c_uint32), ("value", ctypes.c_int64)]


class Code:
    """A code section in this process."""

    def __init__(self, code: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:  # once loaded, the code needs its file no more
            path = Path(folder) / "code.so"
            path.write_bytes(code)
            self.library = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
        runtime = ctypes.CDLL(next(str(p) for p in (Path(tvm.__file__).parent / "lib").glob("libtvm_runtime.so")))
        for variable, function in POINTERS.items():
            address = ctypes.cast(getattr(runtime, function), ctypes.c_void_p).value
            if hasattr(self.library, variable):
                self.pointer(variable).value = address
        self.raised = ""
        self._raise = Raise(self._keep)
        self.pointer("fretsaw_raise").value = ctypes.cast(self._raise, ctypes.c_void_p).value

    def pointer(self, variable: str) -> ctypes.c_void_p:
        """A pointer that the code exports for its loader to fill."""
        return ctypes.c_void_p.in_dll(self.library, variable)

    def _keep(self, kind: bytes, parts: ctypes._Pointer[ctypes.c_char_p], count: int) -> None:
        self.raised = f"{kind.decode()}: {b''.join(parts[i] or b'' for i in range(count)).decode()}"

    def call(self, name: str, args: Sequence[NDArray[np.generic] | int]) -> None:
        """Call a kernel.

        Raises:
            RuntimeError: it reported an error, whose text this is.
        """
        tensors = [_tensor(a) if isinstance(a, np.ndarray) else None for a in args]
        packed = (Any * len(args))()
        for slot, arg, tensor in zip(packed, args, tensors, strict=True):
            if tensor is None:
                assert isinstance(arg, int)
                slot.type_index, slot.value = 1, arg
            else:
                slot.type_index, slot.value = 7, ctypes.addressof(tensor)
        function = getattr(self.library, f"__tvm_ffi_{name}")
        result = Any()
        if function(None, packed, ctypes.c_int32(len(args)), ctypes.byref(result)) != 0:
            raise RuntimeError(f"{name}: {self.raised}")


def _tensor(array: NDArray[np.generic]) -> DLTensor:
    assert array.flags.c_contiguous
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    steps = [math.prod(array.shape[i + 1 :]) for i in range(array.ndim)]  # NumPy's own are others where a size is 0
    strides = (ctypes.c_int64 * array.ndim)(*steps)
    return DLTensor(
        array.ctypes.data, 1, 0, array.ndim, CODES[array.dtype.kind], array.itemsize * 8, 1, shape, strides, 0
    )


class Walker:
    """A program ready to run.

    Args:
        section: Bytes of the section ``program``.
        code: Bytes of a code section.
        tensors: The artifact's, in order.
    """

    def __init__(self, section: bytes, code: bytes, tensors: Sequence[NDArray[np.generic]]) -> None:
        self.program, self.code, self.tensors = from_bytes(section), Code(code), tensors

    def run(
        self, entry: str, env: Mapping[str, int], inputs: Mapping[str, NDArray[np.generic]],
        cache: Mapping[str, NDArray[np.generic]],
    ) -> NDArray[np.float32]:  # fmt: skip
        """Run one step.

        Args:
            env: Values of the symbols.
            inputs: By name.
            cache: By name; arrays beside pages are changed in place.
        """
        step = self.program.entry(entry)
        slots = poisoned(step, env)
        values: dict[int, NDArray[np.generic]] = {}
        for i, value in enumerate(step.values):
            shape = [evaluate(d, env) for d in value.shape]
            if i in step.inputs:
                values[i] = inputs[value.name]
                assert list(values[i].shape) == shape and values[i].dtype == NUMPY[value.dtype]
                continue
            home = step.values[step.root(i)]
            if home.slot is None:
                values[i] = inputs[home.name].reshape(shape)
            else:
                nbytes = math.prod(shape) * np.dtype(NUMPY[value.dtype]).itemsize
                values[i] = slots[home.slot][:nbytes].view(NUMPY[value.dtype]).reshape(shape)

        def given(argument: Argument) -> NDArray[np.generic] | int:
            kind, what = argument
            if kind == "cache":
                return cache[str(what)]
            assert isinstance(what, int)
            return what if kind == "int" else values[what] if kind == "value" else self.tensors[what]

        for call in step.calls:
            self.code.call(call.kernel, [given(a) for a in call.args])
        return np.array(values[step.outputs[0]], np.float32)


def poisoned(entry: Entry, env: Mapping[str, int]) -> list[NDArray[np.uint8]]:
    """The slots of a workspace, one after another, every f32 in it NaN."""
    workspace = np.full(entry.workspace(env) // 4 + SLOT_ALIGNMENT, np.nan, np.float32).view(np.uint8)
    start = -workspace.ctypes.data % SLOT_ALIGNMENT
    slots = []
    for slot in entry.slots:
        nbytes = evaluate(slot, env)
        slots.append(workspace[start : start + nbytes])
        start += -(-nbytes // SLOT_ALIGNMENT) * SLOT_ALIGNMENT
    return slots
