"""Build a packed graph into a program: plan once, then the kernels' native code per instruction set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fretsaw.backends.kernel_cache import KernelCache
from fretsaw.backends.program.assemble import assemble
from fretsaw.backends.program.dense_steps import ENTRY, dense_steps, dense_twin
from fretsaw.backends.program.entry import StepProgram
from fretsaw.backends.program.kv_storage import page_planes
from fretsaw.backends.program.plan import plan
from fretsaw.backends.program.prompt_rule import prompt_rule
from fretsaw.backends.program.steps import Plan, Tensor
from fretsaw.backends.tvm.codegen.link import link_kernels
from fretsaw.backends.tvm.codegen.objects import compile_kernels, kernel_of
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.ir import Graph
from fretsaw.ir.errors import LoweringError
from fretsaw.ir.kv import block_dims
from fretsaw.ir.planes import Plane

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
        steps: The step program, which calls the code's kernels.
        tensors: Packed weights, in the order in which the step program numbers them.
        kv: Layers, heads, sizes and planes of the cache, as in the manifest; empty for an encoder.
        program: Entry point and limits, as in the manifest.
        memory: Sizes in bytes, as in the manifest.
        plan: The launches, for reports.
        kernels: How many there are in all variants, and how many had to be compiled.
    """

    variants: Mapping[str, tuple[bytes, tuple[str, ...]]]
    steps: StepProgram
    tensors: Sequence[Tensor]
    kv: Mapping[str, object]
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
        LoweringError: a combination of ops that this backend cannot lower, by name and place.
    """
    options = options or TvmOptions()
    tell = progress or (lambda _: None)
    rule = prompt_rule(graph, options)
    tell("planning kernels")
    made = plan(graph, options)
    kv = cache_geometry(graph, options) if made.cached else {}
    planes = _planes(kv, options, made) if kv else ()
    entries, dense = {"step" if kv else "encode": made}, dense_steps(graph)
    if dense:
        entries[ENTRY] = dense_twin(made)
    steps = assemble(entries)
    variants, count = _variants(entries.values(), options, cache or KernelCache(), jobs, tell)
    weights, full = sum(t.nbytes for t in made.tensors), step_sizes(options.chunk_tokens, made.cached)
    column = sum(p.page_bytes for p in planes) * kv["layers"] * kv["kv_heads"] if kv else 0
    memory = {
        "weights_bytes": weights,
        "kv_bytes_per_token": column // options.page_tokens,
        "workspace_bytes": max(e.workspace(full) for e in steps.entries),
    }
    program: dict[str, object] = {"entry": next(iter(entries)), "chunk_tokens": options.chunk_tokens}
    if kv:
        program |= {"empty_rows": True, **rule, **dense}  # kernels over no rows do nothing
    described: dict[str, object] = {}
    if kv:
        described = {**kv, "dtype": options.kv, "planes": [p.described() for p in planes]}
    if made.policy is not None:
        described["policy"] = made.policy.described()
    return Program(variants, steps, made.tensors, described, program, memory, made, count)


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


def _planes(kv: Mapping[str, int], options: TvmOptions, made: Plan) -> tuple[Plane, ...]:
    """Planes of the cache in the order of the step's parameters: keys, values, and what kernels keep beside them."""
    return (*page_planes(kv["key_size"], kv["value_size"], kv["page_tokens"], options.kv), *made.planes)


def step_sizes(tokens: int, cached: bool) -> dict[str, int]:
    """Symbols of a full step: a prompt that fills it and one row of logits, or one text for each token."""
    sizes = {"T": tokens, "B": tokens, "R": 1}
    return sizes | block_dims([tokens], [0]) if cached else sizes


def _variants(
    plans: Iterable[Plan], options: TvmOptions, cache: KernelCache, jobs: int, tell: Callable[[str], None]
) -> tuple[dict[str, tuple[bytes, tuple[str, ...]]], KernelCount]:
    """Code by variant name, best first. The kernels of all instruction sets are compiled side by side."""
    isas = [Isa(cpu) for cpu in sorted(options.cpus, reverse=True)]  # v4 before v3
    specs = list(dict.fromkeys(launch.spec for plan in plans for launch in plan.launches))
    kernels = {isa: [kernel_of(spec, isa) for spec in specs] for isa in isas}
    compiled = compile_kernels([k for isa in isas for k in kernels[isa]], cache, jobs, tell)
    variants = {}
    for isa in isas:
        tell(f"linking {isa.name}")
        code = link_kernels({kernel.name: compiled.objects[kernel.key] for kernel in kernels[isa]})
        variants[f"llvm-{isa.name}"] = (code, REQUIRES[isa.name])
    return variants, KernelCount(len(compiled.objects), len(compiled.seconds))
