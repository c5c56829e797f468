"""The backend of the command line's name ``cpu``: what generic code sees of this folder. TVM loads when it builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version

from fretsaw.backends.backend import Backend, ModelFacts, Work
from fretsaw.backends.built import Built, Variant
from fretsaw.backends.lowering import Answer
from fretsaw.backends.program.covers import COVERS
from fretsaw.backends.tvm.options import CPUS, TvmOptions
from fretsaw.backends.tvm.without_torch import without_torch
from fretsaw.ir import Graph
from fretsaw.ir.errors import UsageError


class CpuBackend(Backend[TvmOptions]):
    """Native code for x86-64, a variant for each instruction set over the same weights, compiled by TVM."""

    name = "cpu"
    options = TvmOptions
    phase = "packed"

    def lowerings(self) -> Mapping[str, Answer]:
        return COVERS

    def settle(self, options: TvmOptions, model: ModelFacts) -> TvmOptions:
        """Instruction sets once each, best first; steps that hold the longest text of an encoder, which cannot be cut.

        Raises:
            UsageError: a storage of keys and values where none are kept, or a text may be longer than a step can be.
        """
        check_cache(options, model.kind)
        options = replace(options, cpus=tuple(cpu for cpu in CPUS if cpu in options.cpus))
        if model.kind == "decoder":
            return options
        return replace(options, chunk_tokens=max(options.chunk_tokens, model.context))

    def build(self, graph: Graph, options: TvmOptions, model: ModelFacts, work: Work) -> Built:
        from fretsaw.backends.kernel_cache import KernelCache
        from fretsaw.backends.program.prompt_rule import check_whole_prompts
        from fretsaw.backends.program.serialize import SECTION, to_bytes
        from fretsaw.backends.program.verify import Beside, verify_program

        check_whole_prompts(graph, options, model.context)
        with without_torch():
            from fretsaw.backends.tvm.build import build
        cache = KernelCache()
        program = build(graph, options, work.progress, cache, work.jobs)
        for trouble in cache.troubles:
            work.note(trouble)
        return Built(
            [Variant(name, code, requires) for name, (code, requires) in program.variants.items()],
            program.tensors,
            program.kv,
            {"section": SECTION, **program.program},
            program.memory,
            launches=len(program.plan.launches),
            detail=f"{program.kernels.used} kernels, {program.kernels.compiled} compiled",
            producer={"tvm": version("apache-tvm")},
            sections=[(SECTION, to_bytes(program.steps))],
            verify=lambda manifest: verify_program(program.steps, Beside.of(manifest)),
        )


def check_cache(options: TvmOptions, kind: str) -> None:
    """Refuse a storage for keys and values where none are kept.

    Raises:
        UsageError: the model has no cache.
    """
    if options.kv != "f32" and kind != "decoder":
        what = f"--kv {options.kv} would change nothing: a model of kind {kind} keeps no keys and values"
        raise UsageError(what, hint="leave --kv out")


backend = CpuBackend()
