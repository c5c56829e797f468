"""Numbers for how far two results are apart, and the bound that rounding alone stays under."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fretsaw.ir import Graph, TensorType

Array = np.ndarray
CHUNK = 1 << 18  # elements compared at once, so that comparing needs no memory of note


def difference(before: Sequence[Array], after: Sequence[Array]) -> float:
    """Largest absolute difference of any array over the largest magnitude of that array; infinite where sizes differ
    or one side alone is NaN or infinite."""
    return max((_difference(a.reshape(-1), b.reshape(-1)) for a, b in zip(before, after, strict=True)), default=0.0)


def _difference(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return float("inf")
    worst = 0.0
    for start in range(0, a.size, CHUNK):
        x, y = a[start : start + CHUNK], b[start : start + CHUNK]
        if np.array_equal(x, y):
            continue
        if x.dtype.kind != "f":
            worst = max(worst, float(np.abs(np.subtract(x, y, dtype=np.float64)).max()))
            continue
        fine = np.isfinite(x) & np.isfinite(y)
        if not fine.all():
            if not np.array_equal(x[~fine], y[~fine], equal_nan=True):
                return float("inf")
            x, y = x[fine], y[fine]
        if x.size:
            worst = max(worst, float(np.abs(x - y).max()))
    return worst / max(_largest(a), 1e-300) if worst else 0.0


def _largest(a: Array) -> float:
    """Largest finite magnitude."""
    top = 0.0
    for start in range(0, a.size, CHUNK):
        x = np.abs(a[start : start + CHUNK].astype(np.float64))
        top = max(top, float(x[np.isfinite(x)].max(initial=0.0)))
    return top


def distance(before: Sequence[Array], after: Sequence[Array]) -> float:
    """Root of the summed squared difference over that of ``before``."""
    apart = whole = 0.0
    for a, b in zip(before, after, strict=True):
        if a.size != b.size:
            return float("inf")
        for start in range(0, a.size, CHUNK):
            x, y = (side.reshape(-1)[start : start + CHUNK].astype(np.float64) for side in (a, b))
            apart += float(np.square(x - y).sum())
            whole += float(np.square(x).sum())
    return float(np.sqrt(apart / max(whole, 1e-300)))


def rounding_bound(graph: Graph, eps: float) -> float:
    """eps x widest reduction x nodes: every node may round every term of its reduction anew."""
    widths = [
        v.type.shape[-1] for n in graph.nodes for v in n.operands if isinstance(v.type, TensorType) and v.type.rank
    ]
    width = max((w for w in widths if isinstance(w, int)), default=1)
    return eps * width * len(graph.nodes)


def algebra_bound(graph: Graph, *, rounds_constants: bool = False) -> float:
    """Of the difference in float64: rounding. Where a constant is rounded from 32 bits, eps32 x nodes."""
    if rounds_constants:
        return float(np.finfo(np.float32).eps) * len(graph.nodes)
    return rounding_bound(graph, float(np.finfo(np.float64).eps))
