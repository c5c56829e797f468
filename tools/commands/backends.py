"""``fretsaw backends``: what there is to compile for, the options of each, and which ops each lowers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fretsaw.backends.backend import Backend
    from fretsaw.backends.registry import Registered
    from fretsaw.ir.errors import UsageError


@click.command("backends", short_help="List the backends, or show one.")
@click.argument("name", required=False)
@click.option("--ops", is_flag=True, help="Print what each backend makes of each op, or why it refuses it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, ops: bool, as_json: bool) -> None:
    """List every backend: the phase it lowers from, how many ops it lowers, its options. With NAME: all about one.

    Installed packages bring more (docs/backends.md). One that cannot be loaded is listed with its error.

    \b
    Examples:
      fretsaw backends
      fretsaw backends cpu
      fretsaw backends --ops
      fretsaw backends cpu --ops --json
    """
    import json

    from fretsaw.backends.registry import Registry
    from fretsaw.ir.errors import UsageError

    registry = Registry.standard()
    if name is not None:
        registry.find(name)  # its error is the command's
        registry = Registry({name: registry.backends[name]})
    entries = list(registry.backends.values())
    found: list[Backend[Any] | UsageError] = [load(entry) for entry in entries]
    backends = [b for b in found if not isinstance(b, UsageError)]
    if as_json:
        about = [described(entry, b, ops=ops) for entry, b in zip(entries, found, strict=True)]
        click.echo(json.dumps(about, indent=2, ensure_ascii=False))
        return
    broken = [line for b in found if isinstance(b, UsageError) for line in ("", str(b))]
    lines = op_lines(backends) if ops else table(backends) if name is None else page(entries[0], backends[0])
    for line in [*lines, *broken]:
        click.echo(line)


def load(entry: Registered) -> Backend[Any] | UsageError:
    """The backend, or what is wrong with it."""
    from fretsaw.ir.errors import UsageError

    try:
        return entry.load()
    except UsageError as error:
        return error


def table(backends: Sequence[Backend[Any]]) -> list[str]:
    """Lines in columns: name, phase, ops, options, one line of what it is."""
    from fretsaw.passes.kit.options import describe

    rows = [("name", "phase", "lowers", "options", "what it is")]
    for b in backends:
        options = ", ".join(info.name for info in describe(b.options())) or "none"
        rows.append((b.name, b.phase, counted(b), options, summary(b)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]) for row in rows]


def page(entry: Registered, backend: Backend[Any]) -> list[str]:
    """All about one backend."""
    from fretsaw.tools.commands.passes import option_lines

    passes = ", ".join(p.name for p in backend.passes(backend.options()))
    facts = [("phase", backend.phase), ("lowers", counted(backend)), ("passes", passes or "none of its own")]
    facts.append(("origin", entry.origin))
    lines = [backend.name, "", summary(backend), "", *(f"{key + ':':10}{value}" for key, value in facts)]
    return [*lines, *option_lines(backend.options())]


def op_lines(backends: Sequence[Backend[Any]]) -> list[str]:
    """The op x backend table in columns."""
    from fretsaw.tools.op_table import rows

    found = rows(backends)
    widths = [max(len(row[i]) for row in found) for i in range(len(backends))]  # the last column ends its line
    return ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in found]


def described(entry: Registered, found: Backend[Any] | UsageError, *, ops: bool) -> dict[str, object]:
    """The same as plain data; with ``ops`` the answer for each."""
    from fretsaw.backends.lowering import Lowering
    from fretsaw.ir.errors import UsageError
    from fretsaw.tools.commands.passes import plain_options

    about: dict[str, object] = {"name": entry.name, "origin": entry.origin}
    if isinstance(found, UsageError):
        return {**about, "error": str(found)}
    answers = found.lowerings()
    table = {op: {"to": a.to} if isinstance(a, Lowering) else {"refused": a.reason} for op, a in answers.items()}
    lowered = sum("to" in answer for answer in table.values())
    return {
        **about, "summary": summary(found), "phase": found.phase, "options": plain_options(found.options()),
        "ops": {"lowered": lowered, "refused": len(table) - lowered}, **({"answers": table} if ops else {}),
    }  # fmt: skip


def counted(backend: Backend[Any]) -> str:
    """How many ops it lowers, of those that are legal in its phase."""
    from fretsaw.backends.lowering import Lowering
    from fretsaw.ir.phases import legal_ops

    yes = sum(isinstance(answer, Lowering) for answer in backend.lowerings().values())
    return f"{yes} of {len(legal_ops(backend.phase))} ops"


def summary(backend: Backend[Any]) -> str:
    """The first line of the docstring of its class."""
    from fretsaw.tools.commands.passes import first_line

    return first_line((type(backend).__doc__ or "").strip())
