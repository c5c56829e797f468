"""``fretsaw verify``: every digest, every bound and the step program, in Python; never loads native code."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("verify", short_help="Check digests and structure of an artifact.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress, no message.")
def command(artifact: Path, as_json: bool, quiet: bool) -> None:
    """Check ARTIFACT: header, manifest, section table, step program, and the SHA-256 of every section.

    Ends with status 0 when all is well, 7 when the file is not a whole artifact.

    \b
    Examples:
      fretsaw verify model.fsaw
      fretsaw verify model.fsaw --json | jq .sections
    """
    import json

    from fretsaw.backends.artifact import Container, validate_manifest
    from fretsaw.tools.reporter import Reporter, human_bytes
    from fretsaw.tools.step_program import has_step_program, read_step_program

    container = Container.open(artifact)
    validate_manifest(container.manifest, {e.name: e.nbytes for e in container.sections.values()})
    with Reporter(quiet=quiet or as_json).phase("verify", total=container.header.file_bytes) as phase:
        container.verify(phase.advance)
    if has_step_program(container):
        read_step_program(container)  # after the digests: damage is named as such
    size, count = container.header.file_bytes, len(container.sections)
    if as_json:
        sections = {e.name: {"bytes": e.nbytes, "sha256": e.digest.hex()} for e in container.sections.values()}
        click.echo(json.dumps({"ok": True, "bytes": size, "sections": sections}, indent=2))
    elif not quiet:
        click.echo(f"{artifact}: good ({count} sections, {human_bytes(size)})")
