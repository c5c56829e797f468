"""Widths under a budget, exactly: one of several widths for each item, least total cost, bits within the budget.

A multiple-choice knapsack by dynamic programming over the bits that are used, and over which of the required widths
have occurred. Costs are any numbers; ties go to the narrower width of the earlier item, so the answer is the same
everywhere.

Source: the integer program of PMQ, arXiv:2410.06270, without a solver.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Infeasible(Exception):
    """No choice of widths is within the budget and has every required width."""


def allocate(
    costs: NDArray[np.float64], widths: Sequence[int], budget: int, required: Sequence[int] = ()
) -> tuple[int, ...]:
    """The width of each item.

    Args:
        costs: [items, widths]; what it costs to give an item a width.
        widths: Bits, ascending.
        budget: Most bits of all items together.
        required: Widths that at least one item must have.

    Raises:
        Infeasible: there is no such choice.
    """
    marks = {width: 1 << i for i, width in enumerate(required)}
    goal = (1 << len(marks)) - 1
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {(0, 0): (0.0, ())}
    for item, row in enumerate(costs):
        following: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
        least = (len(costs) - item - 1) * widths[0]
        for (used, seen), (cost, chosen) in best.items():
            for width, price in zip(widths, row, strict=True):
                if used + width + least > budget:
                    continue
                key = (used + width, seen | marks.get(width, 0))
                found = (cost + float(price), (*chosen, width))
                if key not in following or found < following[key]:
                    following[key] = found
        best = following
    whole = [found for (_, seen), found in best.items() if seen == goal]
    if not whole:
        raise Infeasible(
            f"{len(costs)} items of {widths[0]} to {widths[-1]} bits have no choice within {budget} bits"
            + (f" that has each of the widths {', '.join(map(str, required))}" if required else "")
        )
    return min(whole)[1]


def significance(
    frequency: NDArray[np.float64], weight: NDArray[np.float64], errors: NDArray[np.float64],
    exponents: tuple[float, float, float],
) -> NDArray[np.float64]:  # fmt: skip
    """PMQ's cost of giving an expert a width: ``phi^alpha * w^beta * eps^gamma``, phi and w as shares of their sums.

    Args:
        frequency: phi [E], pairs of token and slot that chose the expert.
        weight: w [E], the sum of its routing weights.
        errors: eps [E, widths].
        exponents: alpha, beta, gamma.
    """
    alpha, beta, gamma = exponents
    shares = [x / total if (total := x.sum()) else np.zeros_like(x) for x in (frequency, weight)]
    cost: NDArray[np.float64] = (shares[0] ** alpha * shares[1] ** beta)[:, None] * errors**gamma
    return cost
