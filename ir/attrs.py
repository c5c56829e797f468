"""Attributes by their types. Nodes of a verified graph have what the op's declaration says, so a miss is our bug.

Readers of a node ask it (``node.int_attr("axis")``); shape rules and references have the attributes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from fretsaw.ir.dims import Dim, DimLike
from fretsaw.ir.op import Attr

Attrs = Mapping[str, Attr]


def int_of(attrs: Attrs, name: str, default: int | None = None) -> int:
    """An integer.

    Raises:
        TypeError: it is something else.
    """
    value = attrs.get(name, default)
    return value if isinstance(value, int) else _miss(name, value, "an integer")


def float_of(attrs: Attrs, name: str, default: float | None = None) -> float:
    """A number; raises TypeError as :func:`int_of` does."""
    value = attrs.get(name, default)
    return float(value) if isinstance(value, int | float) else _miss(name, value, "a number")


def str_of(attrs: Attrs, name: str, default: str | None = None) -> str:
    """A string; raises TypeError as :func:`int_of` does."""
    value = attrs.get(name, default)
    return value if isinstance(value, str) else _miss(name, value, "a string")


def ints_of(attrs: Attrs, name: str) -> tuple[int, ...]:
    """Integers; raises TypeError as :func:`int_of` does. None given is none."""
    value = attrs.get(name) or ()
    found = tuple(n for n in value if isinstance(n, int)) if isinstance(value, tuple) else ()
    return found if isinstance(value, tuple) and len(found) == len(value) else _miss(name, value, "integers")


def dim_of(attrs: Attrs, name: str) -> DimLike:
    """A size or a place on an axis; raises TypeError as :func:`int_of` does."""
    value = attrs.get(name)
    return value if isinstance(value, int | Dim) else _miss(name, value, "a dimension")


def shape_of(attrs: Attrs, name: str) -> tuple[DimLike, ...]:
    """A shape; raises TypeError as :func:`int_of` does."""
    value = attrs.get(name)
    found = tuple(d for d in value if isinstance(d, int | Dim)) if isinstance(value, tuple) else ()
    return found if isinstance(value, tuple) and len(found) == len(value) else _miss(name, value, "a shape")


def _miss(name: str, value: object, wanted: str) -> NoReturn:
    raise TypeError(f"attribute {name} is {value!r}, not {wanted}")
