"""From a checkpoint directory to ``model.fsaw``: the phases in order, reported as they run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fretsaw.ir.errors import UsageError
from fretsaw.tools.reporter import Reporter

if TYPE_CHECKING:
    from fretsaw.backends.tvm.build import Program
    from fretsaw.backends.tvm.options import TvmOptions
    from fretsaw.frontend.checkpoint import Checkpoint
    from fretsaw.ir import Graph
    from fretsaw.passes.kit.ledger import LedgerEntry
    from fretsaw.passes.pipeline import PipelineResult

PHASES = ("canonical", "fused", "packed")


@dataclass(frozen=True)
class CompileOptions:
    """What ``fretsaw compile`` is told.

    Args:
        dump_ir: Folder for the IR text after each phase, or None.
        check: Run the graph before and after each pass where it is small enough.
    """

    tvm: TvmOptions
    dump_ir: Path | None = None
    check: bool = True


def compile_checkpoint(source: Path, output: Path, options: CompileOptions, reporter: Reporter) -> int:
    """Compile ``source`` into ``output`` and return the file's size in bytes.

    Raises:
        FretsawError: whatever stands in the way; ``output`` is then as it was before.
    """
    check_output(output)
    with reporter.phase("load libraries"):
        import fretsaw.frontend.capture  # noqa: F401  torch and transformers, once
        from fretsaw.backends.tvm.build import build
    checkpoint = _load(source, reporter)
    captured = _capture(checkpoint, reporter)
    _dump(options, 0, captured)
    result = _run_passes(captured, options, reporter)
    for number, (_, graph) in enumerate(result.stages[1:], 1):
        _dump(options, number, graph)
    with reporter.phase("generate code") as phase:
        program = build(result.graph, options.tvm, lambda note: phase.progress(0, note=note))
        phase.record.nodes = len(program.plan.launches)
        phase.record.nbytes = sum(len(code) for code, _ in program.variants.values())
    return _write(output, checkpoint, result, program, reporter)


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
    from fretsaw.frontend.chat_template import check_chat_template
    from fretsaw.frontend.checkpoint import load_checkpoint
    from fretsaw.frontend.tokenizer import check_tokenizer

    with reporter.phase("load checkpoint") as phase:
        checkpoint = load_checkpoint(source)
        if checkpoint.tokenizer_json is not None:
            check_tokenizer(checkpoint.tokenizer_json)
        if checkpoint.chat_template is not None:
            check_chat_template(checkpoint.chat_template)
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


def _run_passes(graph: Graph, options: CompileOptions, reporter: Reporter) -> PipelineResult:
    """One reporter phase per pipeline phase; the ledgers are joined."""
    from fretsaw.passes.pipeline import Event, PipelineResult, run_pipeline

    stages: list[tuple[str, Graph]] = [(graph.phase, graph)]
    ledger: list[LedgerEntry] = []
    for name in PHASES:
        with reporter.phase(f"passes: {name}") as phase:

            def observe(event: Event, show: object = phase.progress) -> None:
                phase.progress(event.index, event.count, event.name)

            result = run_pipeline(graph, (name,), observer=observe, check=options.check)
            graph = result.graph
            phase.record.nodes = len(graph.nodes)
            phase.record.sites = sum(entry.hit for entry in result.ledger)
        stages += result.stages[1:]
        ledger += result.ledger
    return PipelineResult(graph, tuple(stages), tuple(ledger))


def _dump(options: CompileOptions, number: int, graph: Graph) -> None:
    from fretsaw.ir import to_text

    if options.dump_ir is not None:
        options.dump_ir.mkdir(parents=True, exist_ok=True)
        (options.dump_ir / f"{number:02}_{graph.phase}.fir").write_text(to_text(graph) + "\n")


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
