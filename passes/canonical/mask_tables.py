"""Analysis: a mask that a model keeps as a table, [.., N, N], from which programs cut the upper left corner.

tril(ones(N, N))                ==>     i1 - i0 <= 0
0 within a band, -inf beyond    ==>     i1 - i0 - ahead <= 0 and i0 - i1 - back <= 0
"""

from __future__ import annotations

import numpy as np

from fretsaw.ir import ArrayData, Const
from fretsaw.passes.canonical.affine import Formula, axis, below, both, number
from fretsaw.passes.canonical.mask_meaning import Choice, Meaning

LARGEST = 1 << 26  # elements of a table that is looked at: 8,192 tokens


def read_table(const: Const) -> Meaning | None:
    """The band that the table shows, over its last two axes; None when it is no band, or no square of two values."""
    shape = const.type.shape
    if not isinstance(const.data, ArrayData) or len(shape) < 2 or shape[-1] != shape[-2]:
        return None
    array = const.load()
    if any(d != 1 for d in array.shape[:-2]) or not 4 <= array.size <= LARGEST:
        return None
    table = array.reshape(array.shape[-2:])
    kept = table[0, 0]  # a query sees its own key, whatever else it sees
    where = _band(table == kept, len(shape))
    others = table[table != kept]
    if where is None or (others.size and (others != others[0]).any()):
        return None
    lost = others[0] if others.size else kept
    if table.dtype == bool:
        return where if kept else None
    return Choice(where, float(kept), float(lost))


def _band(seen: np.ndarray, rank: int) -> Formula | None:
    """``k - q <= ahead and q - k <= back`` for a matrix of booleans that is exactly that."""
    size = seen.shape[0]
    ahead, back = int(np.count_nonzero(seen[0])) - 1, int(np.count_nonzero(seen[:, 0])) - 1
    gap = np.arange(size)[None, :] - np.arange(size)[:, None]
    if not np.array_equal(seen, (gap <= ahead) & (gap >= -back)):
        return None
    distance = axis(rank - 1).plus(axis(rank - 2), -1)
    parts = [below(distance.plus(number(ahead), -1))] if ahead < size - 1 else []
    if back < size - 1:
        parts.append(below(distance.times(-1).plus(number(back), -1)))
    return both(*parts)
