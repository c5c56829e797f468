"""Names of formats as options."""

from __future__ import annotations

from fretsaw.ir.formats import FORMATS
from fretsaw.ir.types import FLOATS


def check_format(name: str) -> None:
    """Refuse a name that is no format of real numbers.

    Raises:
        ValueError: lists those that there are.
    """
    real = [f.name for f in FORMATS.values() if f.dtypes & FLOATS]
    if name not in real:
        raise ValueError(f"format is one of {', '.join(real)}, not {name}")
