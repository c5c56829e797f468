"""``fretsaw cache``: what is kept for the next compile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fretsaw.backends.kernel_cache import KernelCache, Usage


@click.command("cache", short_help="Show or empty the cache of captured graphs and compiled kernels.")
@click.argument("action", type=click.Choice(["show", "clear"]), default="show")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(action: str, as_json: bool) -> None:
    """Show the cache of captured graphs and compiled kernels, or empty it.

    A graph or kernel that was made once from the same inputs is taken from here, so that a second compile, `bisect`,
    `auto` and `explain` make only what is new. Artifacts are the same bytes with and without it. The folders are
    $XDG_CACHE_HOME/fretsaw/graphs and .../kernels (by default in ~/.cache); FRETSAW_CACHE names another one, or `off`.

    \b
    Examples:
      fretsaw cache
      fretsaw cache clear
      FRETSAW_CACHE=off fretsaw compile smollm2 -o smollm2.fsaw
    """
    import json

    from fretsaw.backends.kernel_cache import KernelCache
    from fretsaw.tools.capturing import graph_cache

    caches = (graph_cache(), KernelCache())
    cleared = [_clear(cache) for cache in caches] if action == "clear" else None
    if as_json:
        found = {}
        for i, cache in enumerate(caches):
            usage = cache.usage() if cleared is None else cleared[i]
            folder = str(cache.place.folder) if cache.place.folder else None
            count = {"entries" if cleared is None else "deleted": usage.entries, "bytes": usage.nbytes}
            found[f"{cache.kind.name}s"] = {
                "folder": folder, "why": cache.place.why, "limit_bytes": cache.limit, **count
            }  # fmt: skip
        click.echo(json.dumps(found, indent=2))
    else:
        lines = [_line(c, None if cleared is None else cleared[i]) for i, c in enumerate(caches)]
        click.echo("\n".join(dict.fromkeys(lines)))  # that there is no folder is said once


def _clear(cache: KernelCache) -> Usage:
    from fretsaw.ir.errors import UsageError

    try:
        return cache.clear()
    except OSError as error:
        raise UsageError(f"cannot empty {cache.place.folder}: {error.strerror}", where=str(error.filename)) from None


def _line(cache: KernelCache, deleted: Usage | None) -> str:
    from fretsaw.tools.reporter import human_bytes

    folder, things = cache.place.folder, cache.kind.things
    if folder is None:
        return cache.place.why or "FRETSAW_CACHE is off: nothing is kept for the next compile"
    if deleted is not None:
        return f"{folder}: {deleted.entries} {things} deleted ({human_bytes(deleted.nbytes)})"
    usage = cache.usage()
    age = "" if usage.oldest is None else f", the oldest used {_ago(usage.oldest)}"
    return f"{folder}: {usage.entries} {things}, {human_bytes(usage.nbytes)} of {human_bytes(cache.limit)}{age}"


def _ago(when: float) -> str:
    import time

    hours = max(0.0, time.time() - when) / 3600
    return (
        f"{hours / 24:.0f} days ago" if hours >= 48 else f"{hours:.0f} hours ago" if hours >= 1 else "within the hour"
    )
