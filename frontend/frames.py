"""Where in a model's source something happened: the innermost frame that is neither torch's nor this package's.

Whose a frame is follows from where the two packages are installed. The words of a path tell nothing: a model, a
checkout or a virtual environment may lie in a folder called ``torch`` or ``fretsaw``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import torch

PACKAGES = (os.path.dirname(torch.__file__), os.path.dirname(__file__))  # folders whose frames are not the model's

# A frame's line is indented by two blanks at most, the source that is quoted below it by four. The path ends at the
# last `", line`: it may have blanks and quotes.
_FRAME = re.compile(r'^ {0,2}File "(.+)", line (\d+), in .+$', re.MULTILINE)


def raised_at(error: BaseException) -> str:
    """``file.py:line`` of the model's innermost frame that ``error`` came through; empty where there is none."""
    return _innermost(_frames(error))


def called_at(stack: str) -> str:
    """The same of a stack as `traceback` writes it, innermost frame last; empty where no frame is the model's."""
    return _innermost((file, int(line)) for file, line in _FRAME.findall(stack))


@cache  # a stack per node, and mostly the same files: following links asks the file system
def is_model(file: str) -> bool:
    """Whether a code object's ``co_filename`` lies outside `PACKAGES`; that of generated code, ``<string>``, does."""
    return file.startswith("<") or not any(_lies_in(os.path.dirname(file), package) for package in PACKAGES)


def _lies_in(folder: str, package: str) -> bool:
    """As written or with links followed. Those of folders only: some installers make each file a link to a store."""
    spellings = ((read(folder), read(package)) for read in (os.path.abspath, os.path.realpath))
    return any(Path(inner).is_relative_to(outer) for inner, outer in spellings)


def _frames(error: BaseException) -> Iterator[tuple[str, int]]:
    at = error.__traceback__
    while at is not None:
        yield at.tb_frame.f_code.co_filename, at.tb_lineno
        at = at.tb_next


def _innermost(frames: Iterable[tuple[str, int]]) -> str:
    own = [(file, line) for file, line in frames if is_model(file)]
    return f"{os.path.basename(own[-1][0])}:{own[-1][1]}" if own else ""
