"""``fretsaw cache``: the kernels that were compiled and are kept for the next compile."""

from __future__ import annotations

import click


@click.command("cache", short_help="Show or empty the cache of compiled kernels.")
@click.argument("action", type=click.Choice(["show", "clear"]), default="show")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(action: str, as_json: bool) -> None:
    """Show the cache of compiled kernels, or empty it.

    A kernel that was compiled once with the same inputs is taken from here, so that a second compile, `bisect`, `auto`
    and `explain` compile only what is new. Artifacts are the same bytes with and without it. The folder is
    $XDG_CACHE_HOME/fretsaw/kernels (by default in ~/.cache); FRETSAW_CACHE names another one, or `off`.

    \b
    Examples:
      fretsaw cache
      fretsaw cache clear
      FRETSAW_CACHE=off fretsaw compile smollm2 -o smollm2.fsaw
    """
    import json

    from fretsaw.backends.kernel_cache import KernelCache
    from fretsaw.ir.errors import UsageError
    from fretsaw.tools.reporter import human_bytes

    cache = KernelCache()
    folder = cache.place.folder
    try:
        usage = cache.clear() if action == "clear" else cache.usage()
    except OSError as error:
        raise UsageError(f"cannot empty {folder}: {error.strerror}", where=str(error.filename)) from None
    if as_json:
        found = {"folder": str(folder) if folder else None, "why": cache.place.why, "limit_bytes": cache.limit}
        found |= {"cleared" if action == "clear" else "kernels": usage.entries, "bytes": usage.nbytes}
        click.echo(json.dumps(found, indent=2))
    elif folder is None:
        click.echo(cache.place.why or "FRETSAW_CACHE is off: compiled kernels are not kept")
    elif action == "clear":
        click.echo(f"{folder}: {usage.entries} kernels deleted ({human_bytes(usage.nbytes)})")
    else:
        age = "" if usage.oldest is None else f", the oldest used {_ago(usage.oldest)}"
        of = f"{human_bytes(usage.nbytes)} of {human_bytes(cache.limit)}"
        click.echo(f"{folder}: {usage.entries} kernels, {of}{age}")


def _ago(when: float) -> str:
    import time

    hours = max(0.0, time.time() - when) / 3600
    return (
        f"{hours / 24:.0f} days ago" if hours >= 48 else f"{hours:.0f} hours ago" if hours >= 1 else "within the hour"
    )
