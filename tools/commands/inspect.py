"""``fretsaw inspect``: what an artifact or an IR text holds, as tables, text, DOT, JSON or an HTML page.

Reads data only: no code section is loaded, no weight is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from fretsaw.tools.report.source import Source

PIPE_WIDTH = 120  # columns of the tables where no terminal tells


@click.command("inspect", short_help="Show what is in an artifact.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--pass", "pass_name", metavar="NAME", help="Show one pass: every site, every decline with its reason.")
@click.option("--ir", "phase", metavar="PHASE", help="Print the IR text after PHASE, for example packed.")
@click.option("--dot", "dot", metavar="[PHASE]", is_flag=False, flag_value="", help="Print the graph in DOT.")
@click.option("--layer", type=click.IntRange(min=0), metavar="N", help="With --dot: show the nodes of layer N only.")
@click.option(
    "--attention", is_flag=True, help="Show what every head of sparse attention reads; also with --json or --html."
)
@click.option("--program", is_flag=True, help="Show the launches of a step and their memory; also with --json.")
@click.option("--html", "page", type=click.Path(path_type=Path), metavar="OUT", help="Write one self-contained page.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: manifest, sections, evidence.")
def command(
    file: Path,
    pass_name: str | None,
    phase: str | None,
    dot: str | None,
    layer: int | None,
    attention: bool,
    program: bool,
    page: Path | None,
    as_json: bool,
) -> None:
    """Show model, variants, sections, weights, memory plan and passes of FILE.

    FILE is an artifact, or an IR text whose name ends in .fir.

    \b
    Examples:
      fretsaw inspect model.fsaw
      fretsaw inspect model.fsaw --pass merge_qkv
      fretsaw inspect model.fsaw --html report.html
      fretsaw inspect sparse.fsaw --attention --html masks.html
      fretsaw inspect model.fsaw --ir packed | less
      fretsaw inspect model.fsaw --program | less
      fretsaw inspect model.fsaw --dot packed --layer 3 | dot -Tsvg > layer3.svg
      fretsaw inspect model.fsaw --json | jq .manifest.memory
      fretsaw inspect 03_packed.fir
    """
    from fretsaw.ir.errors import UsageError
    from fretsaw.tools.report.source import Source

    chosen = [name for name, given in _views(pass_name, phase, dot, page, as_json).items() if given]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other")
    if layer is not None and dot is None:
        raise UsageError("--layer needs --dot")
    if attention and (pass_name is not None or phase is not None or dot is not None):
        raise UsageError("--attention goes with --json or --html alone")
    if program and (attention or page is not None or pass_name is not None or phase is not None or dot is not None):
        raise UsageError("--program goes with --json alone")
    source = Source.open(file)
    if program:
        _show_program(source, as_json)
    elif attention:
        _show_attention(source, page, as_json)
    elif phase is not None:
        click.echo(_for_terminal(source.ir(phase)), nl=False)
    elif dot is not None:
        from fretsaw.tools.report.dot import to_dot

        click.echo(to_dot(source.graph(dot), layer), nl=False)
    elif page is not None:
        _write_page(source, page)
    elif as_json:
        import json

        click.echo(json.dumps(source.to_json(), indent=2))
    else:
        _print_tables(source, pass_name)


def _views(
    pass_name: str | None, phase: str | None, dot: str | None, page: Path | None, as_json: bool
) -> dict[str, bool]:
    return {
        "--pass": pass_name is not None, "--ir": phase is not None, "--dot": dot is not None,
        "--html": page is not None, "--json": as_json,
    }  # fmt: skip


def _print_tables(source: Source, pass_name: str | None) -> None:
    _print(source.tables(pass_name))


def _print(items: Iterable[RenderableType]) -> None:
    import os

    from rich.console import Console

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=PIPE_WIDTH)
    for item in items:
        console.print(item, markup=False, highlight=False)


def _write_page(source: Source, page: Path) -> None:
    from fretsaw.tools.report.page import render

    _write(page, render(source))


def _show_attention(source: Source, page: Path | None, as_json: bool) -> None:
    import json

    from fretsaw.tools.report.attention import SECTION, read_attention
    from fretsaw.tools.report.attention_page import attention_table, render_attention, to_json

    if source.container is None:
        from fretsaw.ir.errors import UsageError

        raise UsageError(f"{source.path} is the text of one graph; --attention shows artifacts")
    measured = SECTION in source.container.sections
    program = source.container.manifest["program"]
    assert isinstance(program, dict)  # validated
    sparse = measured or program.get("chunk_align", 1) > 1
    found = read_attention(source.container.text(SECTION)) if measured else None
    if as_json:
        click.echo(json.dumps({"sparse": sparse, "attention": None if found is None else to_json(found)}, indent=2))
    elif found is None:
        click.echo(
            "attention: sparse, not measured when it was compiled" if sparse else "attention: dense in every layer"
        )
    elif page is not None:
        _write(page, render_attention(found, source.path.name))
    else:
        _print([attention_table(found)])


def _show_program(source: Source, as_json: bool) -> None:
    import json

    from fretsaw.backends.program.serialize import to_json
    from fretsaw.backends.program.text import to_text

    program, tensors = source.program()
    click.echo(json.dumps(to_json(program)) if as_json else _for_terminal(to_text(program, tensors)), nl=as_json)


def _write(page: Path, text: str) -> None:
    from fretsaw.ir.errors import UsageError

    try:
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {page}: {error.strerror}") from None


def _for_terminal(text: str) -> str:
    """What a file says must not move the cursor of a terminal; into a pipe or a file it goes unchanged."""
    import sys

    from fretsaw.tools.report.words import lines

    return lines(text) if sys.stdout.isatty() else text
