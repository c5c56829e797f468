"""Where on a text sparse attention begins to leave something out."""

from __future__ import annotations

from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.options import Sparse

MOST = 1 << 20  # tokens: a text that long and dense is dense


def begins(options: Sparse) -> int:
    """First tokens of a text at which nothing is left out, in whole blocks; 0 where nothing ever is, so that checks
    look at it all the same."""
    if options.exact_dense(MOST):
        return 0
    low, high = 0, MOST // BLOCK  # dense at low, not dense at high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if options.exact_dense(middle * BLOCK) else (low, middle)
    return low * BLOCK
