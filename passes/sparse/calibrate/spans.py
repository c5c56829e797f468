"""MoA's offline search: a span alpha + beta * position for every group of heads, under a bound on density.

    minimise   sum over groups and rows of the softmax mass outside the span
    such that  mean density <= bound over half and over all rows that are not dense,  at most two spans in a layer

The source weighs what is masked by gradients of the loss on answers of the dense model; here it is the attention mass
that a span leaves out, which needs no gradients and knows nothing of what later layers make of it. Spans here follow
the row's position, so that one text holds all shorter ones.

Source: MoA, arXiv:2406.14909: beta in eighths, a sink of one block, at most two plans in a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from fretsaw.ir.errors import PassError
from fretsaw.ir.kv import BLOCK
from fretsaw.ir.ops.select_extra import EIGHTHS, elastic_window
from fretsaw.passes.sparse.calibrate.survey import Survey
from fretsaw.passes.sparse.methods.moa import MoA
from fretsaw.passes.sparse.options import Sparse

Array = np.ndarray
ALPHAS = 8  # steps from 0 to the length of the text
SPANS = 2  # in a layer
LENGTHS = (0.5, 1.0)  # of the rows that are not dense
SECONDS, GAP = 20.0, 1e-3


@dataclass(frozen=True)
class SpanPlan:
    """What was chosen.

    Args:
        chosen: Options of every head.
        outside: Softmax mass outside the spans, over all mass.
        density: Mean over groups at each of :data:`LENGTHS`.
    """

    chosen: dict[tuple[int, int], Sparse]
    outside: float
    density: tuple[float, ...]


def span_candidates(tokens: int, dense_until: int) -> tuple[MoA, ...]:
    """Every alpha and beta whose span differs from the others on this text."""
    out: dict[bytes, MoA] = {}
    for eighths in range(EIGHTHS + 1):
        for step in range(ALPHAS + 1):
            alpha = step * tokens // ALPHAS // BLOCK * BLOCK
            options = MoA(alpha=max(alpha, BLOCK), beta=eighths / EIGHTHS, dense_until=dense_until)
            out.setdefault(span_mask(options, -(-tokens // BLOCK)).tobytes(), options)
    return tuple(out.values())


def span_mask(options: MoA, blocks: int) -> Array:
    """Blocks that a span reads, bool [nQ, nK]."""
    i, j = np.arange(blocks)[:, None], np.arange(blocks)[None, :]
    ends = [elastic_window((n + 1) * BLOCK, options.alpha, int(options.beta * EIGHTHS)) // BLOCK for n in range(blocks)]
    dense = (i + 1) * BLOCK <= options.dense_until
    mask: Array = ((i - j < np.array(ends)[:, None]) | (j < options.sink) | dense) & (j <= i)
    return mask


def choose_spans(found: Survey, bound: float, kv_heads: int) -> SpanPlan:
    """Spans of least mass outside.

    Args:
        bound: Largest mean density, 0 to 1, of the rows that are not dense, at each of the lengths.

    Raises:
        PassError: no plan is that sparse, because of the rows that stay dense.
    """
    numbers = sorted(found.layers)
    blocks = next(iter(found.layers.values())).block_mass.shape[1]
    ways = span_candidates(found.text.ids.size, found.first)
    masks = np.stack([span_mask(o, blocks) for o in ways])
    mass = np.stack([_by_group(found.layers[n].block_mass, kv_heads) for n in numbers])  # [L, K, nQ, nK]
    outside = np.einsum("lkij,cij->lkc", mass, (~masks).astype(np.float64), optimize=True)
    first = min(found.first // BLOCK, blocks - 1)
    ends = [first + max(round(share * (blocks - first)), 1) for share in LENGTHS]
    density = np.stack([_density(masks, first, end) for end in ends])  # [lengths, C]
    choice = _solve(outside, density, bound)
    whole = float(mass.sum())
    lost = float(np.take_along_axis(outside, choice[:, :, None], 2).sum())
    group = found.heads // kv_heads
    chosen: dict[tuple[int, int], Sparse] = {
        (numbers[i], k * group + g): ways[c]
        for i, row in enumerate(choice.tolist()) for k, c in enumerate(row) for g in range(group)
    }  # fmt: skip
    return SpanPlan(chosen, lost / whole, tuple(float(row[choice].mean()) for row in density))


def _by_group(mass: Array, kv_heads: int) -> Array:
    """Mass f32[H, nQ, nK] of heads that share keys, summed."""
    summed: Array = mass.reshape(kv_heads, -1, *mass.shape[1:]).sum(axis=1, dtype=np.float64)
    return summed


def _density(masks: Array, first: int, end: int) -> Array:
    """Of the rows from ``first`` to ``end``, per candidate."""
    counted: Array = masks[:, first:end].sum(axis=(1, 2)) / np.arange(first + 1, end + 1).sum()
    return counted


def _solve(outside: Array, density: Array, bound: float) -> Array:
    """Candidates [L, K] by an integer program."""
    layers, groups, ways = outside.shape
    picks, uses = outside.size, layers * ways
    at = np.arange(picks)
    use = picks + (at // (groups * ways)) * ways + at % ways
    one = sparse.kron(sparse.eye(layers * groups), np.ones((1, ways)))
    opened = sparse.coo_matrix(
        (np.repeat([1.0, -1.0], picks), (np.tile(at, 2), np.concatenate([at, use]))), (picks, picks + uses)
    )
    mean = np.concatenate(
        [np.tile(density, (1, layers * groups)) / (layers * groups), np.zeros((len(density), uses))], 1
    )
    few = sparse.hstack([sparse.csr_matrix((layers, picks)), sparse.kron(sparse.eye(layers), np.ones((1, ways)))])
    limits = [
        LinearConstraint(sparse.hstack([one, sparse.csr_matrix((layers * groups, uses))]), 1, 1),
        LinearConstraint(opened, -np.inf, 0), LinearConstraint(mean, -np.inf, bound),
        LinearConstraint(few, -np.inf, SPANS),
    ]  # fmt: skip
    cost = np.concatenate([outside.reshape(-1) / outside.max(initial=1.0), np.zeros(uses)])
    found = milp(
        cost, constraints=limits, integrality=np.ones(picks + uses), bounds=Bounds(0, 1),
        options={"time_limit": SECONDS, "mip_rel_gap": GAP},
    )  # fmt: skip
    if found.x is None:
        least = float(density.min(axis=1).max())
        what = f"no spans have a mean density of {bound:g} at every length; the narrowest have {least:.3g}"
        raise PassError(what, when="searching spans", hint="raise the density, or lower dense_until")
    choice: Array = found.x[:picks].reshape(layers, groups, ways).argmax(axis=2)
    return choice
