"""MInference's offline search: one of three patterns for every head, all at the same budget of keys.

Candidates are the source's, scaled from its prompt of 30,000 tokens to a share of this text; the best has the fewest
elements of the output that are off by more than 5e-3 (the source's second objective). Budgets count columns and
diagonals in tokens; how many blocks they touch differs, and the densities that a survey measures say by how much. The
A-shape is the one in whole blocks (``moa`` with beta 0): an exact span would hold for rows that are to stay dense too.

Source: MInference, arXiv:2407.02490; the card's candidates (100,800), (30,800), (100,750), (500,700), (3500,100).
"""

from __future__ import annotations

import numpy as np

from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.calibrate.survey import Survey
from fretsaw.passes.sparse.methods.minference import MInference
from fretsaw.passes.sparse.methods.moa import MoA
from fretsaw.passes.sparse.options import Sparse

A_SHAPES = ((100, 800),)
LINES = ((30, 800), (100, 750), (500, 700), (3500, 100))


def pattern_candidates(tokens: int, share: float, dense_until: int, per_chunk: bool = False) -> tuple[Sparse, ...]:
    """Every pattern with ``share`` of ``tokens`` keys."""
    keys = max(int(share * tokens), 2 * BLOCK)
    shapes = [MoA(alpha=b, beta=0.0, sink=-(-a // BLOCK), dense_until=dense_until) for a, b in _scaled(A_SHAPES, keys)]
    lines = [
        MInference(pattern="vertical_slash", vertical=a, slash=b, dense_until=dense_until, per_chunk=per_chunk)
        for a, b in _scaled(LINES, keys)
    ]
    blocks = MInference(pattern="block_sparse", blocks=max(keys // BLOCK, 3), dense_until=dense_until)
    return (*shapes, *lines, blocks)


def _scaled(pairs: tuple[tuple[int, int], ...], keys: int) -> list[tuple[int, int]]:
    return [(keys * a // (a + b), keys - keys * a // (a + b)) for a, b in pairs]


def choose_patterns(found: Survey) -> dict[tuple[int, int], Sparse]:
    """The candidate with the fewest elements that are off, for every head; the first of equals."""
    out: dict[tuple[int, int], Sparse] = {}
    for number, layer in found.layers.items():
        tried = [(c, heads) for c, heads in enumerate(layer.losses) if heads is not None]
        for head in range(layer.power.size):
            if tried:
                best = int(np.argmin([heads[head].off for _, heads in tried]))
                out[number, head] = found.candidates[tried[best][0]]
    return out
