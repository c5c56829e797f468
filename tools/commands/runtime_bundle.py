"""``fretsaw runtime-bundle``: the binary and its libraries in one folder, for machines without Python."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("runtime-bundle", short_help="Write a folder that runs artifacts without Python.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print sizes as one JSON object.")
def command(directory: Path, as_json: bool) -> None:
    """Write fretsaw-run and every library it needs (but the C library's own) to DIRECTORY.

    Copy the folder to any Linux machine of the same architecture with as new a C library, and run it there.

    \b
    Examples:
      fretsaw runtime-bundle fretsaw-runtime
      env -i fretsaw-runtime/fretsaw-run model.fsaw --prompt "Hello"
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from fretsaw.tools.bundle import write_bundle
    from fretsaw.tools.reporter import human_bytes

    files = write_bundle(directory)
    sizes = {file.name: file.size for file in files}
    total = sum(sizes.values())
    if as_json:
        click.echo(json.dumps({"files": sizes, "bytes": total}, indent=2))
        return
    table = Table(show_footer=True)
    table.add_column("file", footer="total")
    table.add_column("size", justify="right", footer=human_bytes(total))
    for file in files:
        table.add_row(file.name, human_bytes(file.size))
    Console().print(table)
