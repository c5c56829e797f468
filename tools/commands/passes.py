"""``fretsaw passes``: which passes exist, and everything about one of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fretsaw.passes.api import Pass


@click.command("passes", short_help="List the passes, or show one.")
@click.argument("name", required=False)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Python file with more passes; its code runs. Repeat for several.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, plugins: tuple[Path, ...], as_json: bool) -> None:
    """List every pass: phase, what it keeps, what it does. With NAME: its drawing, options, contract and source.

    A pass keeps `bits` (identical outputs), `algebra` (only rounding moves) or a `budget` (an approximation).

    \b
    Examples:
      fretsaw passes
      fretsaw passes merge_qkv
      fretsaw passes my_pass --plugin my_pass.py
    """
    import json

    from fretsaw.passes.kit.registry import Registry

    registry = Registry.standard()
    for path in plugins:
        registry = registry.with_plugin(path)
    if name is not None:
        found = registry.find(name)
        click.echo(json.dumps(described(found), indent=2, ensure_ascii=False) if as_json else page(found))
    elif as_json:
        click.echo(json.dumps([described(p) for p in registry.all()], indent=2, ensure_ascii=False))
    else:
        for line in table(registry.all()):
            click.echo(line)


def table(passes: tuple[Pass, ...]) -> list[str]:
    """Lines in columns: name, phase, keeps, when it runs, one line of what it does."""
    rows = [("name", "phase", "keeps", "runs", "what it does")]
    rows += [(p.name, p.phase, p.keeps, "always" if always(p) else "on request", summary(p)) for p in passes]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]) for row in rows]


def page(p: Pass) -> str:
    """All about one pass: the docstring, then a line for each property."""
    from fretsaw.passes.kit.options import describe, show

    facts = [
        ("phase", p.phase),
        ("runs", "in every compile" if always(p) else f"on request: --pass {p.name}"),
        ("keeps", p.keeps),
        ("contract", p.sites.says()),
    ]
    facts += [("after", ", ".join(p.after))] if p.after else []
    facts += [("excludes", ", ".join(p.conflicts))] if p.conflicts else []
    facts += [("origin", p.origin), ("source", source(p))]
    lines = [p.name, "", p.doc, "", *(f"{key + ':':10}{value}" for key, value in facts)]
    options = describe(p.options)
    lines.append("options:  none" if not options else "options:")
    width = max((len(o.name) for o in options), default=0)
    lines += [f"  {o.name.ljust(width)}  {o.takes}, default {show(o.value)}" for o in options]
    return "\n".join(lines)


def described(p: Pass) -> dict[str, object]:
    """The same as plain data."""
    from fretsaw.passes.kit.options import describe

    return {
        "name": p.name, "phase": p.phase, "keeps": p.keeps, "always": always(p), "summary": summary(p), "doc": p.doc,
        "contract": p.sites.says(), "after": list(p.after), "conflicts": list(p.conflicts), "origin": p.origin,
        "source": source(p),
        "options": [{"name": o.name, "takes": o.takes, "default": o.value} for o in describe(p.options)],
    }  # fmt: skip


def always(p: Pass) -> bool:
    """Whether the pass is part of every compile."""
    from fretsaw.passes.pipeline import PIPELINE

    return any(p.name == q.name for passes in PIPELINE.values() for q in passes)


def summary(p: Pass) -> str:
    """The first line of the docstring."""
    return next(iter(p.doc.splitlines()), "").rstrip(".")


def source(p: Pass) -> str:
    """File and line of the pass's function; of a group's first rule."""
    body = p.body or next((m.body for m in p.members if m.body is not None), None)
    code = getattr(body, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "unknown"
