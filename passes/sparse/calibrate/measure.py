"""What sparse attention loses, head by head: retained softmax mass, error of the output, and the bound between them.

For a row with dense weights p over the visible keys and a set R of keys that is read,

    m = sum of p over R (and over a sink),   dense = sum p v,   sparse = sum over R of p v / m,
    |dense - sparse| <= 2 (1 - m) max |v|,

because both the part that is left out and the growth of the rest by 1 / m weigh 1 - m in all. The numbers are computed
from the weights themselves, so a head's error costs no second attention; the bound is asserted for every row. Where
keys are read at another distance than theirs the weights are others too, w, and the sum of |p - w| takes the place of
2 (1 - m).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fretsaw.ir.errors import PassError
from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.calibrate.layer import Layer, Reads, causal_blocks

Array = np.ndarray
VISIBLE_ERROR = 5e-3  # an element of the output that is off by more counts, as in MInference's search
TINY = 1e-30  # below it f32 weights lose digits


@dataclass(frozen=True)
class Loss:
    """Of one head on one text, over the rows that were looked at.

    Args:
        density: Blocks read over causal blocks of the whole text.
        mass: Mean softmax mass that is kept.
        mass_p1: Its first percentile over rows.
        error: Root of the summed squared error of the output over that of the dense output.
        bound: The same of the bound, so never below ``error``.
        moved: Squared error of the output, summed.
        off: Share of the output's elements that are off by more than 5e-3.
    """

    density: float
    mass: float
    mass_p1: float
    error: float
    bound: float
    moved: float
    off: float


@dataclass(frozen=True, eq=False)
class Measured:
    """A layer under one or more ways to read it.

    Args:
        dense: The dense output [S, H, Ev].
        losses: ``losses[way][head]``.
        power: Squared dense output of each head, summed over the rows that were looked at [H].
        block_mass: Softmax mass of each key block per query block, summed over its rows, f32[H, nQ, nK].
    """

    dense: Array
    losses: tuple[tuple[Loss, ...], ...]
    power: Array
    block_mass: Array


def measure(layer: Layer, ways: Sequence[Reads], first: int = 0) -> Measured:
    """Dense attention of a layer, and what each way to read it loses.

    Args:
        first: Rows before this position are left out of losses (not of densities): there nothing can be lost.

    Raises:
        PassError: an error is larger than the bound allows, or a row reads nothing (our bug).
    """
    dense = np.zeros((layer.tokens, layer.heads, layer.v.shape[2]), layer.q.dtype)
    masses = np.zeros((layer.heads, layer.blocks, layer.blocks), np.float32)
    power = np.zeros(layer.heads)
    losses: list[list[Loss]] = [[] for _ in ways]
    for head in range(layer.heads):
        sums = _Sums(_reach(layer, head), len(ways))
        for i in range(layer.blocks):
            rows = slice(i * BLOCK, min((i + 1) * BLOCK, layer.tokens))
            p = layer.weights(head, rows)
            parts = _parts(p, layer.v[layer.key_head(head), : rows.stop])
            out = parts.sum(axis=0)
            dense[rows, head] = out
            by_block = np.add.reduceat(p, np.arange(0, rows.stop, BLOCK), axis=1)  # [R, i + 1]
            masses[head, i, : i + 1] = by_block.sum(axis=0)
            if rows.stop <= first:
                continue
            kept = slice(max(first - rows.start, 0), None)
            power[head] += float(np.square(out[kept], dtype=np.float64).sum())
            if not ways:
                continue
            mixed, mass = _read(layer, ways, head, i, rows, p, parts, by_block)
            if layer.sinks is not None:
                mass = mass + np.maximum(1 - p.sum(axis=1), 0)
            sparse = mixed / np.maximum(mass, TINY)[:, :, None]
            faint = mass <= TINY
            for w in np.flatnonzero(faint[:, kept].any(axis=1)).tolist():
                sparse[w, faint[w]] = _again(layer, ways[w], head, i, rows)[0][faint[w]]
            apart = 2 * np.clip(1 - mass.astype(np.float64), 0, 1)
            for w, way in enumerate(ways):
                if way.turn is not None and way.tokens(head, i).size:
                    sparse[w], weights = _again(layer, way, head, i, rows)
                    apart[w] = np.abs(p - weights).sum(axis=1)
            sums.add(out[kept], sparse[:, kept], mass[:, kept], apart[:, kept])
        count = causal_blocks(layer.blocks)
        # Weights are f32: a sum over n keys rounds by n eps of the longest value at most.
        rounding = layer.tokens * float(np.finfo(layer.q.dtype).eps) * sums.reach
        for w, (way, found) in enumerate(zip(ways, losses, strict=True)):
            where = f"layer {layer.number}, head {head}"
            found.append(sums.loss(w, float(way.listed[head]) / count, rounding, where))
    return Measured(dense, tuple(map(tuple, losses)), power, masses)


def _reach(layer: Layer, head: int) -> float:
    """Length of the longest value."""
    return float(np.sqrt(np.square(layer.v[layer.key_head(head)], dtype=np.float64).sum(axis=1)).max())


def _parts(p: Array, v: Array) -> Array:
    """What each key block gives to the output: p [R, n], v [n, Ev] -> [blocks, R, Ev]."""
    full = p.shape[1] // BLOCK
    cut = full * BLOCK
    if not full:
        alone: Array = (p @ v)[None]
        return alone
    blocks: Array = p[:, :cut].reshape(-1, full, BLOCK).transpose(1, 0, 2) @ v[:cut].reshape(full, BLOCK, -1)
    if cut == p.shape[1]:
        return blocks
    return np.concatenate([blocks, (p[:, cut:] @ v[cut:])[None]])


def _read(
    layer: Layer, ways: Sequence[Reads], head: int, block: int, rows: slice, p: Array, parts: Array, by_block: Array
) -> tuple[Array, Array]:
    """What each way reads of a query block: sums of weighted values [W, R, Ev], and the mass [W, R]."""
    whole = np.stack([_whole(way, head, block, rows) for way in ways]).astype(p.dtype)  # [W, blocks]
    # One product for all ways: they differ in the blocks that they take, and every block is read once.
    mixed = (whole @ parts.reshape(parts.shape[0], -1)).reshape(-1, *parts.shape[1:])
    mass = whole @ by_block.T
    for w, way in enumerate(ways):
        if way.window[head]:
            _add_edges(layer, way, head, block, rows, p, mixed[w], mass[w])
        keys = way.tokens(head, block)
        if keys.size:
            mixed[w] += p[:, keys] @ layer.v[layer.key_head(head), keys]
            mass[w] += p[:, keys].sum(axis=1)
    return mixed, mass


def _whole(way: Reads, head: int, block: int, rows: slice) -> Array:
    """Key blocks that every row of a query block reads whole, but for the causal mask, bool [block + 1]."""
    listed: Array = way.blocks[head, block, : block + 1]
    return listed & _spans(way, head, block, rows)[0] if way.window[head] else listed


def _spans(way: Reads, head: int, block: int, rows: slice) -> tuple[Array, Array]:
    """Key blocks inside a span for every row and key, and those outside of it for all, bool [block + 1]."""
    starts, window, sink = np.arange(block + 1) * BLOCK, way.window[head], way.sink[head]
    inside = (rows.stop - 1 - starts < window) | (starts + BLOCK <= sink)
    outside = (rows.start - starts - BLOCK + 1 >= window) & (starts >= sink)
    return inside, outside


def _add_edges(
    layer: Layer, way: Reads, head: int, block: int, rows: slice, p: Array, mixed: Array, mass: Array
) -> None:
    """Add what is read of blocks that a span cuts to the sum [R, Ev] and the mass [R]."""
    inside, outside = _spans(way, head, block, rows)
    edges = np.flatnonzero(way.blocks[head, block, : block + 1] & ~inside & ~outside)
    if not edges.size:
        return
    keys = (edges[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
    keys = keys[keys < rows.stop]
    gap = np.arange(rows.start, rows.stop)[:, None] - keys[None, :]
    left = np.where((gap < way.window[head]) | (keys < way.sink[head])[None, :], p[:, keys], 0)
    mixed += left @ layer.v[layer.key_head(head), keys]
    mass += left.sum(axis=1)


def _seen(way: Reads, head: int, block: int, rows: slice) -> Array:
    """Keys that rows of a query block read before the causal mask, bool [R, rows.stop]."""
    keys = np.arange(rows.stop)
    gap = np.arange(rows.start, rows.stop)[:, None] - keys[None, :]
    listed = np.repeat(way.blocks[head, block, : block + 1], BLOCK)[None, : rows.stop]
    window = way.window[head]
    seen: Array = ((gap < window) | (keys < way.sink[head])[None, :]) & listed if window else listed & (gap >= 0)
    seen[:, way.tokens(head, block)] = True
    return seen


def _again(layer: Layer, way: Reads, head: int, block: int, rows: slice) -> tuple[Array, Array]:
    """Sparse output of a query block from its logits, and its weights [R, rows.stop].

    Raises:
        PassError: a row reads nothing.
    """
    s, keys = layer.logits(head, rows), way.tokens(head, block)
    if way.turn is not None and keys.size:
        s[:, keys] = way.turn.logits(layer, head, rows, keys)
    s = np.where(_seen(way, head, block, rows), s, -np.inf)
    if layer.sinks is None and np.isneginf(s).all(axis=1).any():
        raise PassError("a row reads nothing", where=f"layer {layer.number}, head {head}, block {block}")
    weights = layer.softmax(head, s)
    out: Array = weights @ layer.v[layer.key_head(head), : rows.stop]
    return out, weights


class _Sums:
    """What a head loses under W ways to read it, added up over its query blocks."""

    def __init__(self, reach: float, ways: int) -> None:
        self.reach = reach
        self.mass: list[Array] = []
        self.apart, self.limit = np.zeros(ways), np.zeros(ways)
        self.off = np.zeros(ways, np.int64)
        self.worst = np.zeros(ways)
        self.whole = 0.0
        self.count = 0

    def add(self, dense: Array, sparse: Array, mass: Array, apart: Array) -> None:
        """Rows of the dense output [R, Ev], of the sparse ones [W, R, Ev], the kept mass [W, R] and the sum of weights'
        distances [W, R]."""
        moved = dense.astype(np.float64) - sparse
        square = np.einsum("wre,wre->wr", moved, moved)
        limit = apart * self.reach
        self.mass.append(mass)
        self.apart += square.sum(axis=1)
        self.limit += np.square(limit).sum(axis=1)
        self.whole += float(np.square(dense, dtype=np.float64).sum())
        self.off += np.count_nonzero(np.abs(moved) > VISIBLE_ERROR, axis=(1, 2))
        self.count += dense.size
        self.worst = np.maximum(self.worst, (np.sqrt(square) - limit).max(axis=1))

    def loss(self, way: int, density: float, rounding: float, where: str) -> Loss:
        """The head's numbers under one way.

        Raises:
            PassError: a row's error is over its bound by more than rounding.
        """
        if not self.mass:
            return Loss(density, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
        if not self.worst[way] <= rounding:
            what = f"an output moved by {self.worst[way]:.3g} more than 2 (1 - m) max |v| allows"
            raise PassError(what, where=where)
        whole, apart = max(self.whole, TINY), float(self.apart[way])
        error, bound = np.sqrt(apart / whole), np.sqrt(max(float(self.limit[way]), apart) / whole)
        kept = np.minimum(np.concatenate([m[way] for m in self.mass]), 1)
        return Loss(
            density, float(kept.mean()), float(np.quantile(kept, 0.01)), float(error), float(bound), apart,
            int(self.off[way]) / max(self.count, 1),
        )  # fmt: skip
