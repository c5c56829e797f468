"""``fretsaw compile``: a checkpoint directory in, one artifact out, a table of what happened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fretsaw.backends.tvm.options import WeightType


@click.command("compile", short_help="Compile a checkpoint directory to one artifact.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The artifact to write.")
@click.option(
    "--weights",
    type=click.Choice(["f32", "f16", "bf16"]),
    default="f32",
    show_default=True,
    help="Storage type of matrices; arithmetic is f32 either way.",
)
@click.option(
    "--cpu",
    "cpus",
    multiple=True,
    type=click.Choice(["x86-64-v4", "x86-64-v3"]),
    help="Instruction set to generate code for; repeat for several. Default: both.",
)
@click.option("--chunk", default=512, show_default=True, help="Most tokens in one step of the program.")
@click.option("--dump-ir", type=click.Path(path_type=Path, file_okay=False), help="Write the IR after each phase here.")
@click.option("--no-check", is_flag=True, help="Do not compare the graph before and after each pass.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress and no table.")
def command(
    checkpoint: Path,
    output: Path,
    weights: WeightType,
    cpus: tuple[str, ...],
    chunk: int,
    dump_ir: Path | None,
    no_check: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compile the Hugging Face style directory CHECKPOINT to one artifact.

    The file appears only when it is whole; the same checkpoint gives the same bytes.

    \b
    Examples:
      fretsaw compile smollm2 -o smollm2.fsaw
      fretsaw compile smollm2 -o small.fsaw --weights f16 --cpu x86-64-v3
      fretsaw compile smollm2 -o smollm2.fsaw --dump-ir build/ir
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from fretsaw.backends.tvm.options import CPUS, TvmOptions
    from fretsaw.tools.compiler import CompileOptions, check_output, compile_checkpoint
    from fretsaw.tools.reporter import Reporter, human_bytes, phase_table

    check_output(output)
    reporter = Reporter(quiet=quiet or as_json)
    chosen = tuple(cpu for cpu in CPUS if cpu in cpus) or CPUS
    tvm = TvmOptions(weights=weights, cpus=chosen, chunk_tokens=chunk)
    options = CompileOptions(tvm, dump_ir, check=not no_check)
    size = compile_checkpoint(checkpoint, output, options, reporter)
    if as_json:
        phases = [asdict(record) for record in reporter.records]
        click.echo(json.dumps({"artifact": str(output), "bytes": size, "phases": phases}, indent=2))
    elif not quiet:
        Console().print(phase_table(reporter.records))
        click.echo(f"wrote {output} ({human_bytes(size)})")
