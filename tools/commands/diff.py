"""``fretsaw diff``: what differs between two artifacts or two IR texts, by layer. Reads data only."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("diff", short_help="Show what differs between two artifacts or IR texts.")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--phase", default="", metavar="PHASE", help="Compare the graphs after PHASE; default: the last ones.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="Print nothing; the exit code says it.")
@click.pass_context
def command(ctx: click.Context, before: Path, after: Path, phase: str, as_json: bool, quiet: bool) -> None:
    """Show what differs between BEFORE and AFTER: artifacts (.fsaw), or IR texts (.fir).

    Ends with status 0 when nothing differs, 1 when something does; 2 is a wrong command line, 4 a malformed text, 7 a
    damaged artifact. Names of values do not count; equal changes of several layers are one line. Of two artifacts,
    manifest, evidence and weights are compared too. Native code is never loaded.

    \b
    Examples:
      fretsaw diff old.fsaw new.fsaw
      fretsaw diff old.fsaw new.fsaw --phase canonical --json
      fretsaw diff build/ir/01_canonical.fir build/ir/02_fused.fir
    """
    import json

    from fretsaw.tools.diff.report import compare
    from fretsaw.tools.report.source import Source

    report = compare(Source.open(before), Source.open(after), phase)
    if as_json:
        click.echo(json.dumps({"before": str(before), "after": str(after), **report.to_json()}, indent=2))
    elif not quiet:
        click.echo("\n".join(report.lines()))
    ctx.exit(0 if report.equal else 1)
