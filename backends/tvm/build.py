"""Build a packed graph into a program: plan once, then one module of native code per instruction set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fretsaw.backends.kernel_cache import KernelCache
from fretsaw.backends.tvm.codegen.link import link_program
from fretsaw.backends.tvm.codegen.objects import compile_kernels, kernel_of
from fretsaw.backends.tvm.dense_steps import ENTRY, dense_steps, dense_twin
from fretsaw.backends.tvm.emit import emit
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kv_storage import KvType, kv_format, row_bytes
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.backends.tvm.plan import plan
from fretsaw.backends.tvm.plan.supported import check_supported
from fretsaw.backends.tvm.prompt_rule import prompt_rule
from fretsaw.backends.tvm.steps import Plan, Tensor
from fretsaw.ir import Dim, Graph, Value
from fretsaw.ir.errors import LoweringError
from fretsaw.ir.kv import block_dims

# CPU features that each level needs beyond SSE4.2, by the names that the runtime's detection uses.
REQUIRES: Mapping[str, tuple[str, ...]] = {
    "x86-64-v3": ("avx2", "fma", "f16c", "bmi2"),
    "x86-64-v4": ("avx2", "fma", "f16c", "bmi2", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}


class KernelCount(NamedTuple):
    """Kernels of a program, in all its variants."""

    used: int
    compiled: int  # the others were in the cache


@dataclass(frozen=True)
class Program:
    """Everything of an artifact that the backend makes.

    Args:
        variants: Code by variant name, best first: (ELF shared object, CPU features it needs).
        tensors: Packed weights in the order of the step's parameters.
        kv: Layers, heads and sizes of the cache, as in the manifest; empty for an encoder.
        program: Entry point and limits, as in the manifest.
        memory: Sizes in bytes, as in the manifest.
        plan: The launches, for reports.
        kernels: How many there are in all variants, and how many had to be compiled.
    """

    variants: Mapping[str, tuple[bytes, tuple[str, ...]]]
    tensors: Sequence[Tensor]
    kv: Mapping[str, int | str]
    program: Mapping[str, object]
    memory: Mapping[str, int]
    plan: Plan
    kernels: KernelCount


def build(
    graph: Graph, options: TvmOptions | None = None, progress: Callable[[str], None] | None = None,
    cache: KernelCache | None = None, jobs: int = 1,
) -> Program:  # fmt: skip
    """Compile a packed graph. Neither ``cache`` nor ``jobs`` changes a byte of the result.

    Args:
        progress: Told what is being built.
        cache: Kernels that were compiled before; by default the user's.
        jobs: Kernels compiled at the same time.

    Raises:
        LoweringError: an op or a combination that this backend cannot lower, by name and place.
    """
    options = options or TvmOptions()
    tell = progress or (lambda _: None)
    check_supported(graph)
    rule, storage = prompt_rule(graph, options), kv_format(graph)
    tell("planning kernels")
    made = plan(graph, options)
    kv = cache_geometry(graph, options) if made.cached else {}
    if made.reads("key_bounds"):
        kv["key_bounds"] = True
    entries, dense = {"step" if kv else "encode": made}, dense_steps(graph)
    if dense:
        entries[ENTRY] = dense_twin(made)
    variants, count = _variants(entries, kv, storage, options, cache or KernelCache(), jobs, tell)
    weights = sum(t.nbytes for t in made.tensors)
    per_token = 0
    if kv:
        pair = row_bytes(kv["key_size"], storage) + row_bytes(kv["value_size"], storage)
        bounds = 2 * kv["key_size"] * 4 // kv["page_tokens"] if kv.get("key_bounds") else 0  # beside a page, f32
        per_token = kv["layers"] * kv["kv_heads"] * (pair + bounds)
    memory = {
        "weights_bytes": weights,
        "kv_bytes_per_token": per_token,
        "workspace_bytes": workspace_bytes(made, options),
    }
    program: dict[str, object] = {"entry": next(iter(entries)), "chunk_tokens": options.chunk_tokens}
    if kv:
        program |= {"empty_rows": True, **rule, **dense}  # kernels over no rows do nothing
    described = {**kv, "dtype": storage} if kv else {}
    return Program(variants, made.tensors, described, program, memory, made, count)


def cache_geometry(graph: Graph, options: TvmOptions) -> dict[str, int]:
    """Layers, key-value heads and head sizes of the cache.

    Raises:
        LoweringError: layers differ in heads or sizes, which one page pool cannot hold.
    """
    shapes = {}
    for node in graph.nodes:
        if node.op == "kv_append":
            k, v = node["k"].tensor.shape, node["v"].tensor.shape
            shapes[node.int_attr("layer")] = (k[1], k[2], v[2])
    if not shapes or sorted(shapes) != list(range(len(shapes))):
        raise LoweringError(f"cache layers must be numbered from 0, are {sorted(shapes)}", where=graph.name)
    if len(set(shapes.values())) > 1:
        raise LoweringError(f"layers differ in key-value heads or sizes: {sorted(set(shapes.values()))}")
    heads, key, value = (int(x) for x in shapes[0] if isinstance(x, int))
    return {"layers": len(shapes), "kv_heads": heads, "key_size": key, "value_size": value,
            "page_tokens": options.page_tokens}  # fmt: skip


def workspace_bytes(made: Plan, options: TvmOptions) -> int:
    """Most bytes of activations alive at once in a full step: one row of logits, or one sequence per token.

    Arrays over blocks (ir/kv.py) are those of a prompt that fills the step.
    """
    dims = [d for launch in made.launches for v in launch.outputs for d in v.tensor.shape if isinstance(d, Dim)]
    env = {name: options.chunk_tokens for d in dims for name in d.symbols} | {"R": 1}
    env |= block_dims([options.chunk_tokens], [0]) if made.cached else {}
    last: dict[Value, int] = {}
    for i, launch in enumerate(made.launches):
        for arg in launch.inputs:
            if isinstance(arg, Value):
                last[made.source(arg)] = i
    last.update({made.source(v): len(made.launches) for v in made.outputs})
    live: dict[Value, int] = {}
    peak = 0
    for i, launch in enumerate(made.launches):
        live.update({v: v.tensor.nbytes(env) for v in launch.outputs})
        peak = max(peak, sum(live.values()))
        live = {v: n for v, n in live.items() if last.get(v, -1) > i}
    return peak


def _variants(
    entries: Mapping[str, Plan], kv: Mapping[str, int], storage: KvType, options: TvmOptions, cache: KernelCache,
    jobs: int, tell: Callable[[str], None],
) -> tuple[dict[str, tuple[bytes, tuple[str, ...]]], KernelCount]:  # fmt: skip
    """Code by variant name, best first. The kernels of all instruction sets are compiled side by side."""
    isas = [Isa(cpu) for cpu in sorted(options.cpus, reverse=True)]  # v4 before v3
    specs = list(dict.fromkeys(launch.spec for plan in entries.values() for launch in plan.launches))
    kernels = {isa: [kernel_of(spec, isa) for spec in specs] for isa in isas}
    compiled = compile_kernels([k for isa in isas for k in kernels[isa]], cache, jobs, tell)
    variants = {}
    for isa in isas:
        tell(f"linking {isa.name}")
        objects = {kernel.name: compiled.objects[kernel.key] for kernel in kernels[isa]}
        code = link_program(emit(entries, kv, storage, options, isa), objects, isa)
        variants[f"llvm-{isa.name}"] = (code, REQUIRES[isa.name])
    return variants, KernelCount(len(compiled.objects), len(compiled.seconds))
