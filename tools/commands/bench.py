"""``fretsaw bench``: how fast an artifact reads prompts, beside another one."""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def _lengths(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        found = tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise click.BadParameter(f"{value!r} is not a list of numbers of tokens, such as 2048,8192")
    return found


@click.command("bench", short_help="Prefill speed of an artifact, beside another one.")
@click.argument("artifact", type=FILE)
@click.option("--against", type=FILE, help="Artifact to compare with.")
@click.option(
    "--prefill",
    "lengths",
    default="512,2048",
    show_default=True,
    callback=_lengths,
    help="Tokens of a prompt; several with commas.",
)
@click.option(
    "--decode", type=click.IntRange(0), default=16, show_default=True, help="Tokens to decode after each prompt."
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Readings of each, interleaved.")
@click.option(
    "--text",
    type=FILE,
    help="UTF-8 text for the prompts. Default: random tokens, which sparse methods read unlike text.",
)
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 for one per core.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every reading.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    artifact: Path,
    against: Path | None,
    lengths: tuple[int, ...],
    decode: int,
    rounds: int,
    text: Path | None,
    threads: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure how long ARTIFACT takes from a prompt to the first token, and for each token after it.

    Every reading is a process of its own; readings of the two artifacts alternate. Reported are medians over the
    rounds, and the median of the rounds' ratios. The machine should be doing nothing else.

    \b
    Examples:
      fretsaw bench sparse.fsaw --against dense.fsaw --prefill 2048,8192 --text book.txt --threads 2
      fretsaw bench model.fsaw --prefill 512 --rounds 5 --json
    """
    import json
    from functools import partial

    from fretsaw.tools.prefill import measure, read_apart, summary
    from fretsaw.tools.reporter import Reporter

    reporter = Reporter(quiet=quiet or as_json)
    both = (artifact,) if against is None else (artifact, against)
    read = partial(read_apart, decode=decode, threads=threads, text=text)
    with reporter.phase("measure", total=rounds * len(both) * sum(lengths)) as phase:
        found = summary(measure(both, lengths, rounds, read, phase.advance), artifact, against)
    about = {"artifact": str(artifact), "against": str(against) if against else None, "threads": threads,
             "rounds": rounds, "prompts": str(text) if text else "random tokens"}  # fmt: skip
    if as_json:
        click.echo(json.dumps({**about, "prefill": found}, indent=2))
        return

    from rich.console import Console

    from fretsaw.tools.prefill_table import prefill_table

    Console().print(prefill_table(about, found))
