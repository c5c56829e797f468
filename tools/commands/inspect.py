"""``fretsaw inspect``: what an artifact holds, as tables, IR text or JSON. Reads data only."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("inspect", short_help="Show what is in an artifact.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--ir", "phase", metavar="PHASE", help="Print the IR text after PHASE instead, for example packed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: manifest, sections, evidence.")
def command(artifact: Path, phase: str | None, as_json: bool) -> None:
    """Show model, variants, sections, weights, memory plan and passes of ARTIFACT.

    \b
    Examples:
      fretsaw inspect model.fsaw
      fretsaw inspect model.fsaw --ir packed | less
      fretsaw inspect model.fsaw --json | jq .manifest.memory
    """
    import json

    from fretsaw.backends.artifact import Container, validate_manifest
    from fretsaw.ir.errors import UsageError

    container = Container.open(artifact)
    validate_manifest(container.manifest, {e.name: e.nbytes for e in container.sections.values()})
    if phase is not None:
        if as_json:
            raise UsageError("--ir and --json exclude each other")
        click.echo(container.text(f"ir/{phase}"), nl=False)
        return
    evidence = json.loads(container.text("evidence.json")) if "evidence.json" in container.sections else None
    if as_json:
        sections = {
            e.name: {"offset": e.offset, "bytes": e.nbytes, "sha256": e.digest.hex()}
            for e in container.sections.values()
        }
        whole = {"manifest": container.manifest, "sections": sections, "evidence": evidence}
        click.echo(json.dumps(whole, indent=2, ensure_ascii=False))
        return

    from rich.console import Console

    from fretsaw.tools.tables import artifact_tables

    console = Console()
    for table in artifact_tables(container, evidence):
        console.print(table)
