"""GPTQ: columns are rounded one after another, and what each loses is made up for by the columns that come after it.

    H = X^T X + damp * mean(diag) * I,  U = upper Cholesky factor of H^-1
    for column j:   q = round of w_j on the grid of its group;  e = (w_j - q) / U_jj;  w_k -= e U_jk for k > j

Grids are of a group's weights when its first column comes (``act_order``: of the weights as they were, so that groups
stay together). Rows do not depend on each other.

Source: GPTQ, arXiv:2210.17323. Grids with a minimum of their own in f16 take the place of integer zero points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, lapack

from fretsaw.passes.quantize.grid import Floats, Grid, search

BLOCK = 128  # columns between two updates of all that follow; the result does not depend on it but for rounding


class Rounded(NamedTuple):
    """Codes u8 [N, K] and the grids [N, K / group]."""

    codes: NDArray[np.uint8]
    grid: Grid


class NotPositive(Exception):
    """The Hessian has no Cholesky factor at this damping: too few tokens, or inputs that are all alike."""


def gptq(w: Floats, hessian: Floats, bits: int, group: int, *, damp: float = 0.01, act_order: bool = False) -> Rounded:
    """Round ``w`` f32 [N, K].

    Args:
        hessian: X^T X f32 [K, K] of the inputs; its scale does not matter.
        group: Neighbouring columns with one grid; a divisor of K.
        damp: Share of the mean diagonal that is added to the diagonal.
        act_order: Take columns with large inputs first.

    Raises:
        NotPositive: no factor at this damping.
    """
    n, k = w.shape
    work = w.astype(np.float32, copy=True)
    h = hessian.astype(np.float64)
    dead = np.diag(h) <= 0
    h[dead, dead] = 1
    work[:, dead] = 0  # an input that is always zero
    order = np.argsort(-np.diag(h), kind="stable") if act_order else np.arange(k)
    factor = inverse_factor(h[np.ix_(order, order)], damp).astype(np.float32)
    scales, minima = np.zeros((n, k // group), np.float16), np.zeros((n, k // group), np.float16)
    if act_order:
        scales, minima = search(work.reshape(n, -1, group), bits)
    codes = np.zeros((n, k), np.uint8)
    work = work[:, order]
    for begin in range(0, k, BLOCK):
        end = min(begin + BLOCK, k)
        errors = np.zeros((n, end - begin), np.float32)
        for j in range(begin, end):
            at = int(order[j]) // group
            if not act_order and j % group == 0:
                last = min(j + group, k)
                grid = search(_current(work, errors, factor, begin, j, last), bits)
                scales[:, at], minima[:, at] = grid
            column = Grid(scales[:, at], minima[:, at])
            code = column.codes(work[:, j : j + 1], bits)
            codes[:, order[j]] = code[:, 0]
            errors[:, j - begin] = (work[:, j] - column.values(code)[:, 0]) / factor[j, j]
            work[:, j + 1 : end] -= np.outer(errors[:, j - begin], factor[j, j + 1 : end])
        work[:, end:] -= errors @ factor[begin:end, end:]
    return Rounded(codes, Grid(scales, minima))


def _current(work: Floats, errors: Floats, factor: Floats, begin: int, j: int, last: int) -> Floats:
    """Columns ``j`` to ``last`` as they are now; those beyond the block have not heard of its errors yet."""
    end = begin + errors.shape[1]
    columns = work[:, j:last]
    if last <= end:
        return columns
    late = columns.copy()
    late[:, end - j :] -= errors[:, : j - begin] @ factor[begin:j, end:last]
    return late


def inverse_factor(h: NDArray[np.float64], damp: float) -> NDArray[np.float64]:
    """U upper with U^T U = (H + damp * mean(diag) I)^-1.

    Raises:
        NotPositive: H is not positive definite then.
    """
    damped = h + damp * float(np.mean(np.diag(h))) * np.eye(len(h))
    lower, info = lapack.dpotrf(damped, lower=1, clean=1)
    if info != 0:
        raise NotPositive(f"the Hessian is not positive definite at damp={damp:g}")
    inverse, info = lapack.dpotri(lower, lower=1)
    if info != 0:
        raise NotPositive(f"the Hessian cannot be inverted at damp={damp:g}")
    full = np.tril(inverse) + np.tril(inverse, -1).T
    try:
        return np.asarray(cholesky(full, lower=False))
    except np.linalg.LinAlgError:
        raise NotPositive(f"the inverse of the Hessian has no factor at damp={damp:g}") from None


def loss(w: Floats, rounded: Floats, hessian: Floats) -> float:
    """tr((W - Q) H (W - Q)^T): the squared error of the products, summed over the inputs behind ``hessian``."""
    off = (w - rounded).astype(np.float64)
    return float(np.einsum("nk,kl,nl->", off, hessian.astype(np.float64), off, optimize=True))
