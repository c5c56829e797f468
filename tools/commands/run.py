"""``fretsaw run``: hands everything to the ``fretsaw-run`` binary, which replaces this process."""

from __future__ import annotations

import os
import sys

import click

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h"]}


@click.command("run", short_help="Generate text from an artifact.", context_settings=_PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run the fretsaw-run binary with ARGUMENTS; ``fretsaw run --help`` shows its options.

    \b
    Examples:
      fretsaw run model.fsaw --prompt "The capital of France is" --temperature 0
      fretsaw run model.fsaw --bench --prefill 512 --decode 64 --threads 2 --json
    """
    from fretsaw.tools.native import native_file

    binary = str(native_file("fretsaw-run"))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(binary, [binary, *arguments])
