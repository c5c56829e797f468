"""One kernel to one object file, by the TIR passes that a CPU kernel needs and no others.

TVM's default pipeline also prepares threads, shared memory, software pipelines and tensor cores. On a CPU kernel those
passes change nothing, and one of them (``CompactBufferAllocation``) took 60 % of all code generation.
``python -m fretsaw.tools.bench.codegen`` prints what each kernel costs.

Everything here is in the key of the kernel cache: `digest.py` reads this file.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import tvm
from tvm import s_tir, tirx
from tvm.tirx.compilation_pipeline import finalize_host_passes

from fretsaw.backends.tvm.kernels.isa import Isa

CODE_ALIGNMENT = 64  # bytes: a cache line
SHF_EXECINSTR = 0x4


def cpu_passes() -> tuple[tvm.transform.Pass, ...]:
    """From a kernel as written to one that LLVM's code generator takes, in order."""
    tir = tirx.transform
    return (
        tir.FlattenBuffer(),
        tir.BF16ComputeLegalize(),
        tir.NarrowDataType(32),
        tir.VectorizeLoop(True),
        tir.StorageRewrite(),
        # LLVM relies on it: without, it gets gathers where broadcasts were meant, and five times the code.
        tir.StmtSimplify(),
        tir.RemoveNoOp(),
        s_tir.transform.RewriteUnsafeSelect(),
        tir.CommonSubexprElim(),
        # After everything whose cost grows with the number of lines; LLVM simplifies the indices that this leaves.
        tir.UnrollLoop(),
        tir.VerifyMemory(),
        tir.AnnotateEntryFunc(),
        tir.SplitHostDevice(),
        tir.MakePackedAPI(),
        tir.BF16StorageLegalize(),
        finalize_host_passes(),
    )


def cpu_target(isa: Isa) -> tvm.target.Target:
    """The target of kernels and of the code that calls them."""
    target = tvm.target.Target(dict(isa.target))
    return target.with_host(target)


def lower(module: tvm.IRModule, isa: Isa) -> tvm.IRModule:
    """Run the passes on every function, in a context of our own: no setting of the caller's reaches the code."""
    with tvm.transform.PassContext(opt_level=3):
        module = tirx.transform.BindTarget(cpu_target(isa))(module)
        for step in cpu_passes():
            module = step(module)
        return module


def native_module(module: tvm.IRModule, isa: Isa) -> tvm.runtime.Module:
    """LLVM's code for a module of PrimFuncs."""
    return tvm.get_global_func("target.build.llvm")(lower(module, isa), cpu_target(isa))


def compile_object(func: tirx.PrimFunc, isa: Isa) -> bytes:
    """An ELF object with one kernel. Equal inputs give equal bytes, in any thread."""
    code = native_module(tvm.IRModule({str(func.attrs["global_symbol"]): func}), isa)
    with tempfile.TemporaryDirectory(prefix="fretsaw-") as folder:
        path = Path(folder) / "kernel.o"
        code.write_to_file(str(path))
        return _aligned(path.read_bytes())


def _aligned(elf: bytes) -> bytes:
    """The object with its code at a multiple of `CODE_ALIGNMENT`, whatever it is linked beside.

    LLVM asks for 16 bytes, and then what lies in front of a kernel decides where its loops begin in a cache line: the
    same GEMM was up to 3 % slower in one program than in another.
    """
    data = bytearray(elf)
    (table,) = struct.unpack_from("<Q", data, 0x28)  # e_shoff of ELF64
    size, count = struct.unpack_from("<HH", data, 0x3A)  # e_shentsize, e_shnum
    for at in range(table, table + size * count, size):
        if struct.unpack_from("<Q", data, at + 0x08)[0] & SHF_EXECINSTR:
            struct.pack_into("<Q", data, at + 0x30, CODE_ALIGNMENT)  # sh_addralign
    return bytes(data)
