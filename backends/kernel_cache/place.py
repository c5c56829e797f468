"""Which folder holds a cache, and whether it may be trusted.

Code comes out of this folder, so one that others may write to is not used. Nothing here fails: without a folder a
compile takes longer, and `Place.why` says what was wrong in one line.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "FRETSAW_CACHE"  # `off`, or a folder to use instead of the user's own


@dataclass(frozen=True)
class Place:
    """Where entries are kept.

    Args:
        folder: An existing folder of this user, or None: nothing is kept.
        why: What stands in the way of keeping any, in one line; empty where they are kept or not wanted.
    """

    folder: Path | None
    why: str = ""


def find_place(environment: Mapping[str, str] = os.environ, name: str = "kernels") -> Place:
    """The folder that the environment names, made if it is missing.

    ``FRETSAW_CACHE`` is ``off`` or a folder; otherwise ``$XDG_CACHE_HOME/fretsaw/NAME``, by default in ``~/.cache``.
    """
    chosen = environment.get(FOLDER_VARIABLE, "")
    if chosen == "off":
        return Place(None)
    if chosen:
        return _trusted(Path(chosen))
    base = environment.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: a relative path is ignored
        home = environment.get("HOME", "")
        if not os.path.isabs(home):
            return Place(None, _not_kept("HOME is not set"))
        base = os.path.join(home, ".cache")
    return _trusted(Path(base) / "fretsaw" / name)


def _trusted(folder: Path) -> Place:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        return Place(None, _not_kept(f"cannot make {folder}: {error.strerror}"))
    if not stat.S_ISDIR(found.st_mode):
        return Place(None, _not_kept(f"{folder} is not a folder"))
    if found.st_uid != os.geteuid():
        return Place(None, _not_kept(f"{folder} belongs to another user"))
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Place(None, _not_kept(f"others may write to {folder} (chmod go-w makes it safe)"))
    return Place(folder)


def _not_kept(reason: str) -> str:
    return f"nothing is kept for the next compile: {reason}; set {FOLDER_VARIABLE} to a folder of yours, or to off"
