"""Arguments on their way into C: what C would cut, wrap around or misread is refused here, by the argument's name."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
INT32, INT64, UINT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1), (0, 2**64 - 1)


def integer(name: str, value: object, limits: tuple[int, int] = INT64) -> int:
    """``value`` as an int within ``limits``, both included.

    Raises:
        TypeError: not a whole number; a bool or a float is none.
        ValueError: outside of the limits.
    """
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    number = operator.index(value)
    if not limits[0] <= number <= limits[1]:
        raise ValueError(f"{name}: expected an int between {limits[0]} and {limits[1]}, got one outside")
    return number


def real(name: str, value: object) -> float:
    """``value`` as a finite float. Raises TypeError for what is no number, ValueError for NaN and infinities."""
    if isinstance(value, bool | np.bool_ | str) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {number}")
    return number


def flag(name: str, value: object) -> bool:
    """``value`` as a bool. Raises TypeError for anything else."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {type(value).__name__}")
    return bool(value)


def text(name: str, value: object) -> bytes:
    """UTF-8 of a str.

    Raises:
        TypeError: not a str.
        ValueError: it has half of a surrogate pair, which UTF-8 has no bytes for.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        what = f"{name}: the character at {error.start} is half of a surrogate pair (U+{ord(value[error.start]):04X})"
        raise ValueError(f"{what}; text must be valid Unicode") from None


def terminated(name: str, value: object) -> bytes:
    """UTF-8 of a str that C will read up to a NUL. Raises as :func:`text`, and ValueError when it holds one."""
    raw = text(name, value)
    if b"\0" in raw:
        raise ValueError(f"{name}: has a NUL character at {raw.index(0)}, where C would end it")
    return raw


def path(name: str, value: object) -> bytes:
    """Bytes of a path. Raises TypeError for what is none, ValueError when it holds a NUL."""
    if not isinstance(value, str | Path):
        raise TypeError(f"{name}: expected a str or a Path, got {type(value).__name__}")
    raw = os.fsencode(value)
    if b"\0" in raw:
        raise ValueError(f"{name}: has a NUL character at {raw.index(0)}, where C would end it")
    return raw


def strings(name: str, value: Iterable[str]) -> list[bytes]:
    """UTF-8 of a list of strings that C will read up to a NUL. Raises as :func:`terminated`, and for a single str."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected a list of str, got {type(value).__name__}; for one string give [string]")
    return [terminated(f"{name}[{i}]", item) for i, item in enumerate(value)]


def ids(name: str, value: Sequence[int] | npt.NDArray[np.integer]) -> Ids:
    """Token ids i32 ``[n]``, contiguous.

    Raises:
        TypeError: not a list of ints or an integer array of one dimension.
        ValueError: an id over 32 bits.
    """
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or (value.size and value.dtype.kind not in "iu"):
            shape = "x".join(map(str, value.shape)) or "none"
            raise TypeError(f"{name}: expected a list of token ids, got an array of {value.dtype}, shape {shape}")
        wrong = np.flatnonzero((value < INT32[0]) | (value > INT32[1]))
        if wrong.size:
            raise ValueError(f"{name}[{wrong[0]}]: token ids have 32 bits, got {value[wrong[0]]}")
        return np.ascontiguousarray(value, dtype=np.int32)
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected a list of token ids, got {type(value).__name__}")
    return np.array([integer(f"{name}[{i}]", item, INT32) for i, item in enumerate(value)], dtype=np.int32)


def messages(value: Sequence[Mapping[str, str]]) -> tuple[list[bytes], list[bytes]]:
    """Roles and contents of a conversation, in UTF-8. Raises TypeError, ValueError by the message's index and key."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"messages: expected a list of mappings, got {type(value).__name__}")
    roles: list[bytes] = []
    contents: list[bytes] = []
    for i, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise TypeError(f"messages[{i}]: expected a mapping, got {type(message).__name__}")
        for key, place in (("role", roles), ("content", contents)):
            if key not in message:
                raise ValueError(f"messages[{i}]: has no {key!r}")
            place.append(terminated(f"messages[{i}][{key!r}]", message[key]))
    return roles, contents
