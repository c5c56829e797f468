"""The ``fretsaw`` command. Sub-commands load when they are used, so that ``--help`` is quick.

Errors end the process with the kind's exit code and one message; ``--debug`` shows the traceback instead.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from types import FrameType

import click

# Name of a sub-command -> its line in the list. Its function is fretsaw.tools.commands.NAME.command.
COMMANDS = {
    "example": "Write an example checkpoint directory.",
    "compile": "Compile a checkpoint directory to one artifact.",
    "passes": "List the passes, or show one.",
    "backends": "List the backends, or show one.",
    "new-pass": "Write a pass, its test and a recipe.",
    "inspect": "Show what is in an artifact.",
    "explain": "Show why a pass did not fire.",
    "bisect": "Find the pass and site that break a limit.",
    "diff": "Show what differs between two artifacts or IR texts.",
    "verify": "Check digests and structure of an artifact.",
    "run": "Generate text from an artifact.",
    "eval": "Perplexity over a text, KL to the checkpoint, passkey test.",
    "bench": "Prefill speed of an artifact, beside another one.",
    "cache": "Show or empty the cache of compiled kernels.",
    "runtime-bundle": "Write a folder that runs without Python.",
}
EXIT_INTERNAL = 70  # EX_SOFTWARE: our bug
EXIT_INTERRUPT = 130


class Commands(click.Group):
    """Looks a sub-command up by name and imports its module only then."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"fretsaw.tools.commands.{cmd_name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    with contextlib.suppress(PackageNotFoundError):
        return version("fretsaw")
    return "0.1.0 (not installed)"


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"fretsaw {_version()}")
        ctx.exit()


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Compile a transformer checkpoint into one artifact that runs without Python.

    \b
    Examples:
      fretsaw example smollm2 smollm2
      fretsaw compile smollm2 -o smollm2.fsaw
      fretsaw run smollm2.fsaw --prompt "The capital of France is"
    """
    ctx.obj = {"debug": debug or bool(os.environ.get("FRETSAW_DEBUG"))}


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script; ends the process."""
    signal.signal(signal.SIGTERM, _terminate)  # as an exception: half-written files are removed on the way out
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def run(argv: list[str]) -> int:
    """Run one command and return its exit code; errors are written to stderr."""
    debug = "--debug" in argv[: argv.index("--")] if "--" in argv else "--debug" in argv
    argv = [a for i, a in enumerate(argv) if a != "--debug" or "--" in argv[:i]]  # legal after the sub-command too
    try:
        code = cli.main(args=[*(["--debug"] if debug else []), *argv], prog_name="fretsaw", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("fretsaw: interrupted", err=True)
        return EXIT_INTERRUPT
    except BrokenPipeError:  # `fretsaw inspect | head`: not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _report(error, debug)


def _report(error: Exception, debug: bool) -> int:
    from fretsaw.ir.errors import FretsawError
    from fretsaw.runtime.errors import RuntimeFailure

    if debug:
        import traceback

        traceback.print_exc()
    elif isinstance(error, FretsawError):
        click.echo(f"fretsaw: {error.render()}", err=True)
    elif isinstance(error, RuntimeFailure):
        click.echo(f"fretsaw: {error.status}: {error}", err=True)
    elif isinstance(error, MemoryError):
        click.echo("fretsaw: out of memory", err=True)
    else:
        click.echo(f"fretsaw: internal error: {type(error).__name__}: {error}", err=True)
        click.echo("  hint  this is our bug: run again with --debug and send the traceback", err=True)
    if isinstance(error, RuntimeFailure):
        return error.code  # the same number fretsaw-run ends with
    return error.exit_code if isinstance(error, FretsawError) else EXIT_INTERNAL


if __name__ == "__main__":
    main()
