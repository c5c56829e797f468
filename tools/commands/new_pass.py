"""``fretsaw new-pass``: a pass file, a test file and a recipe to start from, all green at once."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("new-pass", short_help="Write a pass, its test and a recipe.")
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    default=".",
    type=click.Path(path_type=Path),
    help="Folder to write to; made where it is missing. Default: here.",
)
def command(name: str, folder: Path) -> None:
    """Write NAME.py, test_NAME.py and NAME.toml: a pass that works, to be changed into yours.

    The tests pass and the recipe compiles as written. Existing files are never replaced.

    \b
    Examples:
      fretsaw new-pass fold_bias
      fretsaw new-pass fold_bias --dir passes
    """
    from fretsaw.tools.new_pass import write_pass

    paths = write_pass(name, folder)
    for path in paths:
        click.echo(f"wrote {path}")
    click.echo(f"next: pytest {paths[1]}")
    click.echo(f"      fretsaw compile CHECKPOINT -o model.fsaw --recipe {paths[2]}")
