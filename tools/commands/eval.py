"""``fretsaw eval``: perplexity of an artifact on a text, how far it is from a checkpoint or another artifact, and
whether it finds a key in a long text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from fretsaw.tools.reporter import Reporter

Numbers = tuple[float, ...]


def _numbers(ctx: click.Context, param: click.Parameter, value: str) -> Numbers:
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers, such as 0,25,50") from None


@click.command("eval", short_help="Perplexity over a text, distance from the checkpoint, passkey test.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--text", type=click.Path(path_type=Path), help="UTF-8 text to score; with --passkey, the filler.")
@click.option("--context", default=1024, show_default=True, help="Tokens in one window.")
@click.option(
    "--against", type=click.Path(path_type=Path), help="Checkpoint directory (in f32) or artifact to compare with."
)
@click.option("--limit", type=click.IntRange(1), help="Score at most this many windows.")
@click.option("--passkey", is_flag=True, help="Ask for a number hidden in long prompts instead.")
@click.option(
    "--lengths",
    default="1024,2048,4096,8192",
    show_default=True,
    callback=_numbers,
    help="Tokens of a prompt with its answer, with --passkey.",
)
@click.option(
    "--depths",
    default="0,25,50,75,100",
    show_default=True,
    callback=_numbers,
    help="Places of the key in percent, with --passkey.",
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Keys for each length and depth, with --passkey.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the keys, with --passkey.")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 for one per core.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    artifact: Path,
    text: Path | None,
    context: int,
    against: Path | None,
    limit: int | None,
    passkey: bool,
    lengths: Numbers,
    depths: Numbers,
    trials: int,
    seed: int,
    threads: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score a text with ARTIFACT: negative log-likelihood and perplexity in windows of --context tokens.

    With --against: KL divergence (mean, 99th percentile, maximum) and agreement of the most likely token.
    With --passkey: how often greedy decoding gives a number of five digits that stands at a depth of the prompt, the
    mean negative log-likelihood of its tokens, and their mean rank in the vocabulary; --against is another artifact.

    \b
    Examples:
      fretsaw eval model.fsaw --text eval.txt --context 1024
      fretsaw eval model.fsaw --text eval.txt --against smollm2 --limit 8 --json
      fretsaw eval sparse.fsaw --text eval.txt --context 8192 --against dense.fsaw
      fretsaw eval sparse.fsaw --passkey --lengths 1024,8192 --against dense.fsaw
    """
    import json

    from fretsaw.ir.errors import UsageError
    from fretsaw.tools.passkey_report import Wanted, passkey_tables, run_passkey
    from fretsaw.tools.reporter import Reporter

    content = _read(text) if text is not None else None
    reporter = Reporter(quiet=quiet or as_json)
    if passkey:
        wanted = Wanted(_lengths(lengths), _depths(depths), trials, seed, content)
        result = run_passkey(artifact, against, wanted, threads, reporter)
    elif content is None:
        raise UsageError("--text names the text to score", hint="or ask for a hidden number with --passkey")
    else:
        result = {"artifact": str(artifact), "text": str(text), "context": context}
        result |= _score(artifact, against, content, context, limit, threads, reporter)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return

    from rich.console import Console

    console = Console()
    for table in passkey_tables(result) if passkey else [_score_table(result)]:
        console.print(table)


def _read(text: Path) -> str:
    from fretsaw.ir.errors import UsageError

    try:
        return text.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {text}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{text} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}") from None


def _score(
    artifact: Path,
    against: Path | None,
    content: str,
    context: int,
    limit: int | None,
    threads: int,
    reporter: Reporter,
) -> dict[str, object]:
    from fretsaw.tools.evaluate import evaluate
    from fretsaw.tools.scorers import ArtifactScorer, reference_scorer

    with reporter.phase("load"):
        ours = ArtifactScorer(artifact, context, threads)
        reference = reference_scorer(against, ours, context, threads) if against is not None else None
    ids = ours.model.encode(content, add_special_tokens=False)
    total = min(len(ids), (limit or len(ids)) * context)
    with reporter.phase("score", total=total) as phase:
        return dict(evaluate(ids, context, ours, reference, limit, phase.advance))


def _lengths(given: Numbers) -> list[int]:
    from fretsaw.ir.errors import UsageError

    if any(n != int(n) or n < 1 for n in given):
        raise UsageError(f"--lengths are whole numbers of tokens, not {', '.join(f'{n:g}' for n in given)}")
    return sorted({int(n) for n in given})


def _depths(given: Numbers) -> list[float]:
    from fretsaw.ir.errors import UsageError

    if any(not 0 <= n <= 100 for n in given):
        raise UsageError(f"--depths are percent, 0 to 100, not {', '.join(f'{n:g}' for n in given)}")
    return sorted(set(given))


def _score_table(result: Mapping[str, object]) -> Table:
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in result.items():
        if isinstance(value, int | float) and name != "context":
            table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:.6g}")
    return table
