"""``fretsaw passes``: which passes exist, and everything about one of them."""

from __future__ import annotations

import textwrap
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

    NAME may come with options, as in --pass, where one of them decides which others there are.

    A pass keeps `bits` (identical outputs), `algebra` (only rounding moves) or a `budget` (an approximation).

    \b
    Examples:
      fretsaw passes
      fretsaw passes merge_qkv
      fretsaw passes sparse_attention:method=xattention
      fretsaw passes my_pass --plugin my_pass.py
    """
    import json

    from fretsaw.passes.kit.recipe import parse_step
    from fretsaw.passes.kit.registry import Registry

    registry = Registry.standard()
    for path in plugins:
        registry = registry.with_plugin(path)
    if name is not None:
        step = parse_step(name)
        found = registry.find(step.name)
        found = found.configured(step.options) if step.options else found
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
    """All about one pass: the docstring, then a line for each property, each option and each variant of the options."""
    facts = [
        ("phase", p.phase),
        ("runs", "in every compile" if always(p) else f"on request: --pass {p.name}"),
        ("keeps", p.keeps),
        ("contract", p.sites.says()),
    ]
    facts += [("after", ", ".join(p.after))] if p.after else []
    facts += [("excludes", ", ".join(p.conflicts))] if p.conflicts else []
    facts += [("origin", p.origin), ("source", source(p))]
    lines = [p.name, "", about(p), "", *(f"{key + ':':10}{value}" for key, value in facts)]
    return "\n".join([*lines, *option_lines(p.options), *variant_lines(p)])


def about(p: Pass) -> str:
    """The docstring of the pass, or of the variant that its options chose."""
    from fretsaw.passes.kit.option_docs import Family

    return (p.options.about() if isinstance(p.options, Family) else "") or p.doc


def option_lines(options: object | None) -> list[str]:
    """What each option takes, its default, its value where that is another, and what its class says that it means."""
    from fretsaw.passes.kit.option_docs import option_docs
    from fretsaw.passes.kit.options import describe, show

    if options is None:
        return ["options:  none"]
    defaults = {o.name: o.value for o in describe(type(options)())}
    docs, found = option_docs(options), describe(options)
    width = max((len(o.name) for o in found), default=0)
    lines = ["options:"]
    for o in found:
        here = f", here {show(o.value) or '(empty)'}" if o.value != defaults[o.name] else ""
        lines.append(f"  {o.name.ljust(width)}  {o.takes}, default {show(defaults[o.name]) or '(empty)'}{here}")
        lines += textwrap.wrap(docs.get(o.name, ""), 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return lines


def variant_lines(p: Pass) -> list[str]:
    """A line for each form that the options come in."""
    from fretsaw.passes.kit.option_docs import Family

    forms, key = (p.options.variants(), p.options.chooser()) if isinstance(p.options, Family) else ({}, "")
    if not forms:
        return []
    width = max(map(len, forms))
    lines = [f"  {name.ljust(width)}  {first_line(form.doc)}" for name, form in forms.items()]
    return [f"{key}s:", *lines, f"One of them with its options: fretsaw passes {p.name}:{key}={next(iter(forms))}"]


def described(p: Pass) -> dict[str, object]:
    """The same as plain data."""
    from fretsaw.passes.kit.option_docs import Family

    forms, key = (p.options.variants(), p.options.chooser()) if isinstance(p.options, Family) else ({}, "")
    more = {
        n: {"summary": first_line(f.doc), "doc": f.doc, "options": plain_options(f.options)} for n, f in forms.items()
    }
    return {
        "name": p.name, "phase": p.phase, "keeps": p.keeps, "always": always(p), "summary": summary(p), "doc": about(p),
        "contract": p.sites.says(), "after": list(p.after), "conflicts": list(p.conflicts), "origin": p.origin,
        "source": source(p),
        "options": plain_options(p.options), **({f"{key}s": more} if more else {}),
    }  # fmt: skip


def plain_options(options: object | None) -> list[dict[str, object]]:
    """Name, what it takes, its value, and what it means where that is said."""
    from fretsaw.passes.kit.option_docs import option_docs
    from fretsaw.passes.kit.options import describe

    docs = {} if options is None else option_docs(options)
    out: list[dict[str, object]] = []
    for o in describe(options):
        said = {"doc": docs[o.name]} if o.name in docs else {}
        out.append({"name": o.name, "takes": o.takes, "default": o.value, **said})
    return out


def always(p: Pass) -> bool:
    """Whether the pass is part of every compile."""
    from fretsaw.passes.pipeline import PIPELINE

    return any(p.name == q.name for passes in PIPELINE.values() for q in passes)


def summary(p: Pass) -> str:
    """The first line of the docstring."""
    return first_line(p.doc)


def first_line(doc: str) -> str:
    """Without the full stop."""
    return next(iter(doc.splitlines()), "").rstrip(".")


def source(p: Pass) -> str:
    """File and line of the pass's function; of a group's first rule."""
    body = p.body or next((m.body for m in p.members if m.body is not None), None)
    code = getattr(body, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "unknown"
