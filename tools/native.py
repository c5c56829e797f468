"""Where the built runtime is: ``fretsaw-run`` and ``libfretsaw.so``."""

from __future__ import annotations

import os
from pathlib import Path

from fretsaw.ir.errors import UsageError


def native_file(name: str) -> Path:
    """Path of a file of the built runtime.

    Looks in the folder named by FRETSAW_BUILD, then in the installed package.

    Raises:
        UsageError: not found; names the folders that were searched.
    """
    folders = native_folders()
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise UsageError(
        f"{name} was not found in {', '.join(map(str, folders))}",
        hint="install the package (pip install .), or build it and set FRETSAW_BUILD to the build folder",
    )


def native_folders() -> list[Path]:
    """Folders that may hold the built runtime, the first one wins."""
    import fretsaw

    named = os.environ.get("FRETSAW_BUILD")
    return [*([Path(named)] if named else []), *(Path(p) / "_native" for p in fretsaw.__path__)]
