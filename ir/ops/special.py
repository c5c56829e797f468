"""Functions of SciPy, which is imported when one is first called: most commands run no reference."""

from __future__ import annotations

from fretsaw.ir.op import Array


def erf(x: Array) -> Array:
    """The Gauss error function."""
    from scipy import special

    out: Array = special.erf(x)
    return out


def expit(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    from scipy import special

    out: Array = special.expit(x)
    return out
