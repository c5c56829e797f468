"""Kernels one by one: the same bytes from anywhere, a key for everything that reaches them, nothing compiled twice."""

from __future__ import annotations

import re
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import tvm
from tvm import tirx

from fretsaw.backends.kernel_cache import KernelCache, Place
from fretsaw.backends.program.specs.layers import AnglesSpec, AttentionSpec, CopySpec, LinearSpec, NormSpec, TakeSpec
from fretsaw.backends.tvm.build import build
from fretsaw.backends.tvm.codegen.digest import kernel_digest, tools
from fretsaw.backends.tvm.codegen.link import link_kernels
from fretsaw.backends.tvm.codegen.objects import compile_kernels, kernel_from, kernel_of
from fretsaw.backends.tvm.kernels.emit import dim, fma, kernel, load, loop, parallel, splat, store, unroll
from fretsaw.backends.tvm.kernels.isa import V3, V4
from fretsaw.backends.tvm.options import TvmOptions
from tests.backends.tvm.conftest import Packed

SPECS = (LinearSpec(40, 24, "f32"), NormSpec(24, 1e-5, "rms", True), TakeSpec(24), CopySpec(24, 3, 8))
NONE = KernelCache(Place(None))


def scaled(factor: float = 0.1, steps: int = 3, dtype: str = "float32", name: str = "scaled") -> tirx.PrimFunc:
    """A small kernel with a constant, a loop and types that tests change one at a time."""
    with kernel(name) as k:
        t = dim("T")
        x, out = k.arg("x", (t, 8), dtype), k.arg("out", (t, 8), dtype)
        with parallel(t) as i, loop(steps), unroll(8) as c:
            store(out, [i, c], load(x, [i, c]) * tirx.const(factor, dtype))
    return k.func


def test_a_key_for_everything_that_reaches_the_code() -> None:
    near = float(tvm.runtime.tensor([0.1]).numpy()[0]) * (1 + 2e-16)  # the next number in f64
    kernels = [scaled(), scaled(0.2), scaled(steps=4), scaled(dtype="float64"), scaled(name="other"),
               scaled(0.1, dtype="float64", steps=4), scaled(near, dtype="float64")]  # fmt: skip
    keys = {kernel_digest(f.script(), isa) for f in kernels for isa in (V3, V4)}
    assert len(keys) == 2 * len(kernels)
    assert kernel_digest(scaled().script(), V3) == kernel_digest(scaled().script(), V3)


@pytest.mark.parametrize("tool", ["fretsaw", "tvm", "tvm_ffi", "llvm", "libraries", "lowering"])
def test_another_tool_is_another_key(tool: str) -> None:
    text = scaled().script()
    assert tools()[tool]
    assert kernel_digest(text, V3, {**tools(), tool: "changed"}) != kernel_digest(text, V3, tools())


def test_attributes_of_a_kernel_are_in_its_key() -> None:
    func = scaled()
    aliased = func.with_attr("tirx.noalias", False)
    assert kernel_from(aliased, V3).key != kernel_from(func, V3).key
    with kernel("fused") as one:
        x = one.arg("x", (8,))
        store(x, [0], fma(load(x, [0]), load(x, [1]), splat(1.0, 1)))
    with kernel("fused") as two:
        x = two.arg("x", (8,))
        store(x, [0], load(x, [0]) * load(x, [1]) + splat(1.0, 1))
    assert kernel_from(one.func, V3).key != kernel_from(two.func, V3).key


def test_objects_are_the_same_bytes_from_any_number_of_threads_and_from_the_cache(tmp_path: Path) -> None:
    kernels = [kernel_of(spec, isa) for spec in SPECS for isa in (V3, V4)]
    cache = KernelCache(Place(tmp_path))
    alone = compile_kernels(kernels, NONE)
    together = compile_kernels(kernels, cache, jobs=4)
    kept = compile_kernels(kernels, cache, jobs=4)
    assert alone.objects == together.objects == kept.objects and len(kept.objects) == 8
    assert (len(alone.seconds), len(together.seconds), len(kept.seconds)) == (8, 8, 0)


def test_code_lies_at_a_cache_line_whatever_it_is_linked_beside() -> None:
    kernel = kernel_of(SPECS[0], V3)
    data = compile_kernels([kernel], NONE).objects[kernel.key]
    (table,), (size, count) = struct.unpack_from("<Q", data, 0x28), struct.unpack_from("<HH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + size * i) for i in range(count)]
    code = [fields for fields in sections if fields[2] & 0x4]
    assert code and {fields[8] for fields in code} == {64}


def test_a_code_section_needs_libc_and_libm_alone(tmp_path: Path) -> None:
    """Kernels that take the workspace, the thread pool and a cosine."""
    specs = (*SPECS, AnglesSpec(8, 1.0), AttentionSpec(4, 2, 8, 8, 64, 1.0, 0, 0.0, False))
    kernels = [kernel_of(spec, V3) for spec in specs]
    objects = compile_kernels(kernels, KernelCache()).objects
    named = {kernel.name: objects[kernel.key] for kernel in kernels}
    code = link_kernels(named)
    assert code == link_kernels(dict(reversed(named.items())))
    path = tmp_path / "code.so"
    path.write_bytes(code)

    def tool(*args: str) -> str:
        return subprocess.run([*args, str(path)], check=True, capture_output=True, text=True).stdout

    wanted = {line.split()[-1] for line in tool("nm", "-D", "--undefined-only").splitlines() if " U " in line}
    assert wanted and all(re.search(r"@GLIBC_", symbol) for symbol in wanted)
    assert set(re.findall(r"NEEDED.*\[(.*)\]", tool("readelf", "-d"))) <= {"libc.so.6", "libm.so.6"}
    exported = {line.split()[-1] for line in tool("nm", "-D", "--defined-only").splitlines()}
    pointers = {f"__TVMBackend{name}" for name in ("ParallelLaunch", "AllocWorkspace", "FreeWorkspace")}
    assert {f"__tvm_ffi_{name}" for name in named} | pointers | {"fretsaw_raise"} <= exported
    assert "TVMFFIErrorSetRaisedFromCStrParts" not in exported


def test_settings_of_the_caller_do_not_reach_the_code() -> None:
    kernels = [kernel_of(SPECS[0], V3)]
    with tvm.transform.PassContext(opt_level=0, config={"tirx.disable_vectorize": True}):
        inside = compile_kernels(kernels, NONE).objects
    assert inside == compile_kernels(kernels, NONE).objects


def test_a_program_has_the_same_bytes_cold_warm_and_without_cache(packed: Packed, tmp_path: Path) -> None:
    graph, _ = packed("llama")
    cache = KernelCache(Place(tmp_path))
    options = TvmOptions(cpus=("x86-64-v3",))
    cold, warm = build(graph, options, cache=cache, jobs=2), build(graph, options, cache=cache)
    never = build(graph, options, cache=NONE)
    assert cold.variants == warm.variants == never.variants
    assert cold.kernels.compiled == cold.kernels.used == never.kernels.compiled == 11
    assert warm.kernels.compiled == 0
    other = build(graph, replace(options, kv="f16"), cache=cache)
    assert 0 < other.kernels.compiled < other.kernels.used  # only what pages are stored as
