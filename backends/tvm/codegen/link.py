"""A program's Relax module and the objects of its kernels, linked to one shared object."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import tvm
from tvm import relax, tirx
from tvm.support import cc

from fretsaw.backends.tvm.codegen.lower import cpu_target, native_module
from fretsaw.backends.tvm.codegen.relax_passes import step_passes
from fretsaw.backends.tvm.kernels.isa import Isa

# No build id and no symbols beyond the exported ones: equal inputs give equal bytes.
LINK_OPTIONS = ["-Wl,--build-id=none", "-Wl,-s"]


def link_program(module: tvm.IRModule, kernels: Mapping[str, bytes], isa: Isa) -> bytes:
    """An ELF shared object with the functions of ``module``.

    Args:
        module: Functions that call kernels by name, as ``emit`` makes it.
        kernels: Object by name of the kernel, one for each that the module has.
    """
    with cpu_target(isa):
        module = step_passes()(module)
    builder = relax.ExecBuilder()
    # What TVM's own build does, but for the kernels: their code exists, and is given to the linker as it is.
    left = relax.vm_build._vmcodegen(builder, module)
    helpers = {var: f for var, f in left.functions.items() if isinstance(f, tirx.PrimFunc)}
    own = {var: f for var, f in helpers.items() if var.name_hint not in kernels}
    shapes = native_module(tvm.IRModule(own), isa)
    executable = relax.VMExecutable(relax.vm_build._ffi_api.VMLink(builder, cpu_target(isa), shapes, [], {}))
    with tempfile.TemporaryDirectory(prefix="fretsaw-") as folder:
        objects = _write(Path(folder), kernels)
        path = Path(folder) / "code.so"
        executable.export_library(str(path), options=LINK_OPTIONS, addons=objects)
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
