"""Codes of a group of weights: w = scale * code + minimum, scale and minimum in f16.

    nearest   the grid spans the group from its least to its greatest weight, each code is the nearest
    search    from there, codes and grid in turn: the grid that fits the codes best in least squares, the codes nearest
              to it; whatever lowers a group's weighted squared error is kept

Source: minima and scales as in ggml's Q4_1 and Q2_K; the alternation is Lloyd's algorithm on an affine grid.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
F16_MAX = 65504.0
ROUNDS = 8  # of the search; more lower the error of normal weights by under a hundredth


class Grid(NamedTuple):
    """f16 scales and minima [..]; one for each group."""

    scales: NDArray[np.float16]
    minima: NDArray[np.float16]

    def codes(self, w: Floats, bits: int) -> NDArray[np.uint8]:
        """The nearest codes of weights [.., group]; 0 where the scale is 0."""
        scale, low = self.scales.astype(np.float32)[..., None], self.minima.astype(np.float32)[..., None]
        steps = np.divide(w - low, scale, out=np.zeros_like(w), where=scale != 0)
        nearest: NDArray[np.uint8] = np.clip(np.rint(steps), 0, 2**bits - 1).astype(np.uint8)
        return nearest

    def values(self, codes: NDArray[np.uint8]) -> Floats:
        """What codes [.., group] mean."""
        scale, low = self.scales.astype(np.float32)[..., None], self.minima.astype(np.float32)[..., None]
        return codes.astype(np.float32) * scale + low


def check_weights(w: Floats) -> None:
    """Refuse weights that no grid holds.

    Raises:
        ValueError: NaN, an infinity, or a magnitude beyond f16.
    """
    if not np.isfinite(w).all():
        raise ValueError("it holds NaN or infinity")
    if w.size and float(np.abs(w).max()) > F16_MAX:
        raise ValueError(f"it holds {float(np.abs(w).max()):g}, and scales in f16 end at {F16_MAX:g}")


def span(w: Floats, bits: int) -> Grid:
    """The grids from the least to the greatest weight of groups [.., group]."""
    low, high = w.min(-1), w.max(-1)
    minima = low.astype(np.float16)
    reach = np.maximum(high - minima.astype(np.float32), 0) / (2**bits - 1)
    return Grid(_scale(reach, high != low), minima)


def _scale(wanted: Floats, used: NDArray[np.bool_]) -> NDArray[np.float16]:
    """``wanted`` in f16, not rounded down to zero where it is used."""
    smallest = np.float32(2**-24)
    return np.where(used, np.clip(wanted, smallest, F16_MAX), 0).astype(np.float16)


def search(w: Floats, bits: int, weight: Floats | None = None) -> Grid:
    """Grids of groups [.., group] with a small sum of ``weight`` times the squared error (equal weights where None)."""
    best = span(w, bits)
    weights = np.ones(w.shape[-1], np.float32) if weight is None else weight
    error = _error(w, best, bits, weights)
    grid = best
    for _ in range(ROUNDS):
        grid = _fit(w, grid, bits, weights)
        found = _error(w, grid, bits, weights)
        better = found < error
        if not better.any():
            break
        error = np.where(better, found, error)
        best = Grid(*(np.where(better, new, old) for new, old in zip(grid, best, strict=True)))
    return best


def _error(w: Floats, grid: Grid, bits: int, weight: Floats) -> Floats:
    off = grid.values(grid.codes(w, bits)) - w
    return np.asarray((off * off * weight).sum(-1, dtype=np.float32))


def _fit(w: Floats, grid: Grid, bits: int, weight: Floats) -> Grid:
    """The grids that fit the codes of ``grid`` best; a group with one code keeps its grid."""
    codes = grid.codes(w, bits).astype(np.float32)
    total = np.broadcast_to(weight, w.shape).sum(-1)
    mean_c, mean_w = (codes * weight).sum(-1) / total, (w * weight).sum(-1) / total
    spread = ((codes - mean_c[..., None]) ** 2 * weight).sum(-1)
    both = ((codes - mean_c[..., None]) * (w - mean_w[..., None]) * weight).sum(-1)
    several = spread > 0
    slope = np.divide(both, spread, out=np.zeros_like(both), where=several)
    low = np.clip(mean_w - slope * mean_c, -F16_MAX, F16_MAX)
    return Grid(
        np.where(several, _scale(slope, several), grid.scales), np.where(several, low.astype(np.float16), grid.minima)
    )
