"""``fretsaw compile``: a checkpoint directory in, one artifact out, a table of what happened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fretsaw.passes.api import Pass
    from fretsaw.passes.evidence.options import EvidenceOptions
    from fretsaw.passes.kit.recipe import Recipe

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("compile", short_help="Compile a checkpoint directory to one artifact.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The artifact to write.")
@click.option(
    "--weights",
    metavar="FORMAT",
    help="Keep matrices as f32, f16 or bf16: short for --pass store_weights:format=FORMAT. Default: as the checkpoint.",
)
@click.option(
    "--kv",
    metavar="FORMAT",
    help="Keep cached keys and values as f32, f16 or int8: short for --pass store_kv:format=FORMAT. Default: f32.",
)
@click.option(
    "--cpu",
    "cpus",
    multiple=True,
    type=click.Choice(["x86-64-v4", "x86-64-v3"]),
    help="Instruction set to generate code for; repeat for several. Default: both.",
)
@click.option("--chunk", default=512, show_default=True, help="Most tokens in one step of the program.")
@click.option(
    "--pass",
    "passes",
    multiple=True,
    metavar="NAME[:K=V,...]",
    help="Also run this pass, at the end of its phase; repeat for several. It fails if it reaches no site.",
)
@click.option(
    "--plugin", "plugins", multiple=True, type=FILE, help="Python file with passes; its code runs. Repeatable."
)
@click.option("--recipe", type=FILE, help="TOML file with passes, options, plugins and limits; --pass come after its.")
@click.option("--max-kl", type=float, help="Largest mean KL divergence to the checkpoint, in nats a token.")
@click.option("--min-top1", type=float, help="Smallest share of tokens with the checkpoint's most likely successor.")
@click.option("--calib", type=FILE, help="UTF-8 text on which passes are checked. Default: seeded random tokens.")
@click.option(
    "--dump-ir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the IR after each phase and each requested pass here.",
)
@click.option("--no-check", is_flag=True, help="Do not compare the graph before and after each pass; stamped so.")
@click.option("--debug-rules", is_flag=True, help="Also check that rules change nothing but what they return.")
@click.option("--jobs", type=click.IntRange(min=1), help="Kernels compiled at the same time. Default: one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress and no table.")
def command(
    checkpoint: Path,
    output: Path,
    weights: str | None,
    kv: str | None,
    cpus: tuple[str, ...],
    chunk: int,
    passes: tuple[str, ...],
    plugins: tuple[Path, ...],
    recipe: Path | None,
    max_kl: float | None,
    min_top1: float | None,
    calib: Path | None,
    dump_ir: Path | None,
    no_check: bool,
    debug_rules: bool,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compile the Hugging Face style directory CHECKPOINT to one artifact.

    The file appears only when it is whole; the same checkpoint gives the same bytes. Compiled kernels are kept for the
    next compile: see `fretsaw cache`.

    \b
    Examples:
      fretsaw compile smollm2 -o smollm2.fsaw
      fretsaw compile smollm2 -o small.fsaw --weights f16 --kv int8 --cpu x86-64-v3
      fretsaw compile smollm2 -o smollm2.fsaw --dump-ir build/ir
      fretsaw compile smollm2 -o smollm2.fsaw --plugin my_pass.py --pass my_pass:strength=2
      fretsaw compile smollm2 -o smollm2.fsaw --recipe recipe.toml --max-kl 0.01
    """
    from fretsaw.backends.tvm.options import CPUS, TvmOptions
    from fretsaw.tools.compiler import CompileOptions, check_output, compile_checkpoint
    from fretsaw.tools.reporter import Reporter

    check_output(output)
    asked = with_short_forms(read_recipe(recipe, passes), {"store_weights": weights, "store_kv": kv})
    requested = resolve(asked, plugins)
    evidence = limits(asked, max_kl, min_top1, check=not no_check)
    reporter = Reporter(quiet=quiet or as_json)
    chosen = tuple(cpu for cpu in CPUS if cpu in cpus) or CPUS
    tvm = TvmOptions(cpus=chosen, chunk_tokens=chunk)
    cores = jobs or len(os.sched_getaffinity(0))
    options = CompileOptions(tvm, requested, evidence, calib, dump_ir, debug_rules, cores)
    size = compile_checkpoint(checkpoint, output, options, reporter)
    _show(reporter, output, size, as_json=as_json, quiet=quiet)


def read_recipe(path: Path | None, passes: tuple[str, ...]) -> Recipe:
    """The recipe, with the passes of the command line after its own.

    Raises:
        UsageError: either cannot be read; names the line.
    """
    from dataclasses import replace

    from fretsaw.passes.kit.recipe import Recipe, load_recipe, parse_step

    recipe = load_recipe(path) if path is not None else Recipe()
    return replace(recipe, steps=(*recipe.steps, *map(parse_step, passes)))


SHORT_FORMS = {"store_weights": "--weights", "store_kv": "--kv"}


def with_short_forms(recipe: Recipe, formats: Mapping[str, str | None]) -> Recipe:
    """The recipe with the passes that ``--weights`` and ``--kv`` stand for after all others.

    Args:
        formats: By name of the pass; None: not given.

    Raises:
        UsageError: the recipe or ``--pass`` has that pass too.
    """
    from dataclasses import replace

    from fretsaw.ir.errors import UsageError
    from fretsaw.passes.kit.recipe import Place, Step

    steps = list(recipe.steps)
    for name, kept in formats.items():
        if kept is None:
            continue
        place = Place(f"{SHORT_FORMS[name]} {kept}")
        other = next((s for s in recipe.steps if s.name == name), None)
        if other is not None:
            what = f"{SHORT_FORMS[name]} is short for {name}, which is requested too"
            raise UsageError(what, where=place.where, hint=f"the other is at {other.place.where}: remove one")
        steps.append(Step(name, {"format": kept}, place))
    return replace(recipe, steps=tuple(steps))


def resolve(recipe: Recipe, plugins: tuple[Path, ...]) -> tuple[Pass, ...]:
    """The requested passes with their options. Nothing is imported where nothing is asked for.

    Raises:
        UsageError: a plugin, pass, option or combination that cannot be; says where it was asked for.
    """
    if not (recipe.steps or recipe.plugins or plugins):
        return ()
    from fretsaw.passes.kit.compose import compose

    return compose(recipe, plugins)[1]


def limits(recipe: Recipe, max_kl: float | None, min_top1: float | None, *, check: bool) -> EvidenceOptions:
    """Checks and limits: the command line's go before the recipe's.

    Raises:
        UsageError: a limit that no run could meet, or limits without checks.
    """
    from fretsaw.passes.evidence.options import EvidenceOptions

    return EvidenceOptions(
        check=check,
        max_kl=recipe.gates.max_kl if max_kl is None else max_kl,
        min_top1=recipe.gates.min_top1 if min_top1 is None else min_top1,
    )


def _show(reporter: object, output: Path, size: int, *, as_json: bool, quiet: bool) -> None:
    import json
    from dataclasses import asdict

    from rich.console import Console

    from fretsaw.tools.reporter import Reporter, human_bytes, phase_table

    assert isinstance(reporter, Reporter)
    if as_json:
        phases = [asdict(record) for record in reporter.records]
        click.echo(json.dumps({"artifact": str(output), "bytes": size, "phases": phases}, indent=2))
    elif not quiet:
        Console().print(phase_table(reporter.records))
        click.echo(f"wrote {output} ({human_bytes(size)})")
