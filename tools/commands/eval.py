"""``fretsaw eval``: perplexity of an artifact on a text, and how far it is from the checkpoint."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("eval", short_help="Perplexity over a text, distance from the checkpoint.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--text", required=True, type=click.Path(path_type=Path), help="UTF-8 text to score.")
@click.option("--context", default=1024, show_default=True, help="Tokens in one window.")
@click.option("--against", type=click.Path(path_type=Path), help="Checkpoint directory to compare with, in f32.")
@click.option("--limit", type=click.IntRange(1), help="Score at most this many windows.")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 for one per core.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    artifact: Path,
    text: Path,
    context: int,
    against: Path | None,
    limit: int | None,
    threads: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score a text with ARTIFACT: negative log-likelihood and perplexity in windows of --context tokens.

    With --against: KL divergence (mean, 99th percentile, maximum) and agreement of the most likely token.

    \b
    Examples:
      fretsaw eval model.fsaw --text eval.txt --context 1024
      fretsaw eval model.fsaw --text eval.txt --against smollm2 --limit 8 --json
    """
    import json

    from fretsaw.ir.errors import UsageError
    from fretsaw.tools.evaluate import ArtifactScorer, CheckpointScorer, evaluate
    from fretsaw.tools.reporter import Reporter

    try:
        content = text.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {text}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{text} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}") from None
    reporter = Reporter(quiet=quiet or as_json)
    with reporter.phase("load"):
        ours = ArtifactScorer(artifact, context, threads)
        reference = CheckpointScorer(against, threads) if against is not None else None
    ids = ours.model.encode(content, add_special_tokens=False)
    total = min(len(ids), (limit or len(ids)) * context)
    with reporter.phase("score", total=total) as phase:
        result = evaluate(ids, context, ours, reference, limit, phase.advance)
    if as_json:
        about = {"artifact": str(artifact), "text": str(text), "context": context}
        click.echo(json.dumps({**about, **result}, indent=2))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in result.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:.6g}")
    Console().print(table)
