"""From a checkpoint directory to ``model.fsaw``: the phases in order, reported as they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fretsaw.ir.errors import UsageError
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.tools.progress import Lines
from fretsaw.tools.reporter import Phase, PhaseRecord, Reporter

if TYPE_CHECKING:
    from fretsaw.backends.tvm.build import Program
    from fretsaw.backends.tvm.options import TvmOptions
    from fretsaw.frontend.checkpoint import Checkpoint
    from fretsaw.ir import Graph
    from fretsaw.passes.api import Pass
    from fretsaw.passes.pipeline import PipelineResult

PHASES = ("canonical", "fused", "packed")


@dataclass(frozen=True)
class CompileOptions:
    """What ``fretsaw compile`` is told.

    Args:
        passes: The requested ones, in order, configured and known to go together.
        evidence: Checks and limits; ``calib`` is filled from the file below.
        calib: Text on which passes are checked, or None.
        dump_ir: Folder for the IR text after each phase and each requested pass, or None.
        debug: Check the rules themselves.
        jobs: Kernels compiled at the same time.
    """

    tvm: TvmOptions
    passes: tuple[Pass, ...] = ()
    evidence: EvidenceOptions = EvidenceOptions()
    calib: Path | None = None
    dump_ir: Path | None = None
    debug: bool = False
    jobs: int = 1


def compile_checkpoint(source: Path, output: Path, options: CompileOptions, reporter: Reporter) -> int:
    """Compile ``source`` into ``output`` and return the file's size in bytes.

    Raises:
        FretsawError: whatever stands in the way; ``output`` is then as it was before.
    """
    check_output(output)
    with reporter.phase("load libraries"):
        import fretsaw.frontend.capture  # noqa: F401  torch and transformers, once
        from fretsaw.backends.kernel_cache import KernelCache
        from fretsaw.backends.tvm.build import build
        from fretsaw.backends.tvm.prompt_rule import check_whole_prompts
    checkpoint = _load(source, reporter)
    options = replace(options, evidence=_with_calibration(options, checkpoint))
    graph = _capture(checkpoint, reporter)
    options = _with_plans(graph, options, output, reporter)
    result = _run_passes(graph, options, reporter)
    check_whole_prompts(result.graph, options.tvm, checkpoint.context)
    cache = KernelCache()
    with reporter.phase("generate code") as phase:
        step = _step_size(options.tvm, checkpoint)
        program = build(result.graph, step, lambda note: phase.progress(0, note=note), cache, options.jobs)
        phase.record.nodes = len(program.plan.launches)
        phase.record.nbytes = sum(len(code) for code, _ in program.variants.values())
        phase.record.detail = f"{program.kernels.used} kernels, {program.kernels.compiled} compiled"
    for trouble in cache.troubles:
        reporter.note(trouble)
    return _write(output, checkpoint, result, program, reporter)


def _step_size(options: TvmOptions, checkpoint: Checkpoint) -> TvmOptions:
    """The options, with steps that hold the longest text of an encoder, which cannot be cut.

    Raises:
        UsageError: a text may be longer than a step can be.
    """
    if checkpoint.kind == "decoder":
        return options
    return replace(options, chunk_tokens=max(options.chunk_tokens, checkpoint.context))


def check_output(output: Path) -> None:
    """Refuse a target that cannot be written before any work is done.

    Raises:
        UsageError: it is a folder, or lies in none.
    """
    if output.is_dir():
        raise UsageError(f"{output} is a folder", hint="name the file to write, for example model.fsaw")
    if not output.parent.is_dir():
        raise UsageError(f"the folder {output.parent} does not exist", hint="make it, or choose another one")


def _load(source: Path, reporter: Reporter) -> Checkpoint:
    from fretsaw.frontend.checkpoint import load_checkpoint
    from fretsaw.tools.text_checks import check_text_files

    with reporter.phase("load checkpoint") as phase:
        checkpoint = load_checkpoint(source)
        check_text_files(checkpoint)
        phase.progress(0, note="digest")
        assert checkpoint.digest
        phase.record.nbytes = sum(p.stat().st_size for p in checkpoint.files)
    return checkpoint


def _capture(checkpoint: Checkpoint, reporter: Reporter) -> Graph:
    from fretsaw.frontend.capture import capture

    with reporter.phase("capture") as phase:
        graph = capture(checkpoint, lambda step, done, total: phase.progress(done, total, step))
        phase.record.nodes = len(graph.nodes)
    return graph


def _with_calibration(options: CompileOptions, checkpoint: Checkpoint) -> EvidenceOptions:
    """The checks with the tokens of the calibration text.

    Raises:
        UsageError: the text cannot be read, or the checkpoint has no tokenizer to read it with.
    """
    if options.calib is None:
        return options.evidence
    from tokenizers import Tokenizer

    if checkpoint.tokenizer_json is None:
        raise UsageError("--calib needs a tokenizer, and the checkpoint has no tokenizer.json")
    try:
        text = options.calib.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read the calibration text {options.calib}: {why}") from None
    ids = Tokenizer.from_str(checkpoint.tokenizer_json.decode()).encode(text).ids
    if len(ids) < 2:
        raise UsageError(f"the calibration text {options.calib} has {len(ids)} tokens, at least 2 are needed")
    return replace(
        options.evidence, calib=tuple(ids), calib_source=options.calib.name, tokens=0
    )  # 0: as many as a text has


def _with_plans(graph: Graph, options: CompileOptions, output: Path, reporter: Reporter) -> CompileOptions:
    """The options with plans in the place of searches for plans (``sparse_attention:method=auto``).

    Raises:
        UsageError: there is no text to search on.
        PassError: no plan holds the limits.
    """
    if not any(getattr(p.options, "method", "") == "auto" for p in options.passes):
        return options
    from fretsaw.tools.sparse.auto import resolve_auto

    with reporter.phase("search plan") as phase:
        lines = Lines("search plan", lambda note: phase.progress(0, note=note), reporter.line, reporter.plain)
        found = resolve_auto(options.passes, graph, options.evidence, output, lines.note, lines.stage)
    return replace(options, passes=found)


def _run_passes(graph: Graph, options: CompileOptions, reporter: Reporter) -> PipelineResult:
    """The pipeline, with one reporter phase per phase of it."""
    from fretsaw.passes.pipeline import Event, run_pipeline

    records: dict[str, PhaseRecord] = {}
    with ExitStack() as running:
        shown: dict[str, Phase] = {}
        lines = Lines("passes", lambda note: None, reporter.line, reporter.plain)

        def observe(event: Event) -> None:
            if event.phase not in shown:
                running.close()
                shown[event.phase] = running.enter_context(reporter.phase(f"passes: {event.phase}"))
                records[event.phase] = shown[event.phase].record
            note = event.name if event.entry is None else ""
            shown[event.phase].progress(event.index, event.count, note)
            if note:
                lines.note(note)

        result = run_pipeline(
            graph, PHASES, options.passes, observe, options.evidence,
            dump=_Dump(options.dump_ir) if options.dump_ir is not None else None, debug=options.debug,
        )  # fmt: skip
    for phase, after in result.stages[1:]:
        records[phase].nodes = len(after.nodes)
        records[phase].sites = sum(entry.hit for entry in result.ledger if entry.phase == phase)
    return result


class _Dump:
    """Writes graphs to a folder as they come, numbered: ``03_fold_norm_gain.fir``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, graph: Graph) -> None:
        from fretsaw.ir import to_text

        (self.folder / f"{self.number:02}_{name}.fir").write_text(to_text(graph) + "\n", encoding="utf-8")
        self.number += 1


def _write(output: Path, checkpoint: Checkpoint, result: PipelineResult, program: Program, reporter: Reporter) -> int:
    from fretsaw.backends.artifact import write_container
    from fretsaw.tools.contents import Contents

    contents = Contents.of(checkpoint, result, program)
    with reporter.phase("pack and write", total=program.memory["weights_bytes"]) as phase:

        def counted(chunks: Iterator[memoryview]) -> Iterator[memoryview]:
            for chunk in chunks:
                yield chunk
                phase.advance(chunk.nbytes)

        sections = [
            (name, counted(iter(chunks)) if name == "weights" else chunks) for name, chunks in contents.sections
        ]
        phase.record.nbytes = write_container(output, contents.manifest, sections)
    assert phase.record.nbytes is not None
    return phase.record.nbytes
