"""One candidate per head: an integer program over what candidates cost and lose.

    minimise   sum over heads of density[l, h, c] x[l, h, c] / H  +  sum over layers of selection[l, g] y[l, g]
    such that  one x[l, h, c] is 1 for every head,  x[l, h, c] <= y[l, g of c],
               sum of loss[l, h, c] x[l, h, c] <= budget,          x, y in {0, 1}

or, where the cost is limited, the least loss within a cost: the same program with the two lines exchanged.

Costs are in units of a layer's dense attention, so a cost of L is what the dense model pays. Scores are computed for a
whole layer, whoever uses them: that is y, of a group of candidates that differ in what they take from the same scores.
Loss is the squared error of a head's output over the squared output of its
layer, so the sum over heads is the squared relative error of the layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from fretsaw.ir.errors import PassError
from fretsaw.passes.sparse.calibrate.survey import Survey
from fretsaw.passes.sparse.options import Sparse

Array = np.ndarray
SECONDS = 10.0  # a program that is not solved by then is used as far as it came
GAP = 1e-3  # of what is minimised
# Options that say how much is taken from scores. (Of hyper_attention, in no space yet, each setting hashes anew.)
RULES = frozenset({"threshold", "density", "blocks", "p"})
UNIT = 1e3  # largest coefficient of what is minimised: the solver's absolute tolerances are below 1e-6


@dataclass(frozen=True, eq=False)
class Table:
    """Costs and losses of a survey, with dense attention as the last candidate.

    Args:
        layers: Their numbers.
        density: [L, H, C], infinite where a candidate does not exist.
        loss: [L, H, C].
        selection: [L, C].
        scorer: [C], group of each candidate; none of them share scores where it is not given.
    """

    layers: tuple[int, ...]
    density: Array
    loss: Array
    selection: Array
    scorer: tuple[int, ...] = ()

    @staticmethod
    def of(found: Survey) -> Table:
        numbers = tuple(sorted(found.layers))
        shape = (len(numbers), found.heads, len(found.candidates) + 1)
        density, loss = np.full(shape, np.inf), np.zeros(shape)
        selection = np.zeros((shape[0], shape[2]))
        for i, number in enumerate(numbers):
            layer = found.layers[number]
            whole = max(float(layer.power.sum()), 1e-30)
            for c, heads in enumerate(layer.losses):
                if heads is None:
                    continue
                density[i, :, c] = [x.density for x in heads]
                loss[i, :, c] = [x.moved / whole for x in heads]
                selection[i, c] = layer.selection[c]
        density[:, :, -1] = 1.0
        keys = [_scores_of(c) for c in found.candidates]
        return Table(numbers, density, loss, selection, (*map(keys.index, keys), len(keys)))

    @property
    def groups(self) -> tuple[int, ...]:
        """Group of each candidate, numbered by the first that has it."""
        return self.scorer or tuple(range(self.selection.shape[1]))

    @property
    def scores(self) -> Array:
        """Cost of the scores of each group [L, C]; zero for numbers that are no group's."""
        out = np.zeros_like(self.selection)
        np.maximum.at(out.T, list(self.groups), self.selection.T)
        return out

    def cost(self, choice: Array) -> float:
        """Of a choice [L, H], over that of the dense model."""
        taken = np.take_along_axis(self.density, choice[:, :, None], 2)[:, :, 0].mean()
        groups, scores = self.groups, self.scores
        used = sum(scores[i, sorted({groups[c] for c in row})].sum() for i, row in enumerate(choice.tolist()))
        return float(taken + used / len(self.layers))

    def lost(self, choice: Array) -> float:
        """Mean over layers of the squared relative error of a choice [L, H]."""
        return float(np.take_along_axis(self.loss, choice[:, :, None], 2).sum() / len(self.layers))


def _scores_of(options: Sparse) -> tuple[object, ...]:
    """What decides the scores of a candidate: its method and the options that are no rule for taking from them."""
    own = {k: v for k, v in options.own().items() if k not in RULES}
    return (options.method, *sorted(own.items(), key=lambda item: item[0]))


def choose(table: Table, budget: float) -> Array:
    """Candidates [L, H] of least cost whose mean loss over layers is at most ``budget``.

    Raises:
        PassError: the solver found nothing (dense attention is always a solution, so that is our bug).
    """
    return _solve(table, _costs(table), _losses(table), budget * len(table.layers))


def choose_within(table: Table, cost: float) -> Array:
    """Candidates [L, H] of least loss whose cost is at most ``cost`` of dense attention's, choosing included.

    Raises:
        PassError: no candidates are that cheap.
    """
    costs, losses = _costs(table), _losses(table)
    choice = _solve(table, losses * (UNIT / max(losses.max(initial=0.0), 1e-30)), costs, cost * len(table.layers))
    if table.cost(choice) > cost * (1 + GAP):
        raise PassError(f"a plan costs {table.cost(choice):.4g} of dense attention, the limit is {cost:g}")
    return choice


def _costs(table: Table) -> Array:
    """Of every pick x and every use y, in layers of dense attention."""
    there = np.isfinite(table.density)
    each = np.where(there, table.density, 0).reshape(-1) / table.density.shape[1]
    return np.concatenate([each, table.scores.reshape(-1)])


def _losses(table: Table) -> Array:
    """Of every pick x and every use y."""
    return np.concatenate([table.loss.reshape(-1), np.zeros(table.selection.size)])


def _solve(table: Table, least: Array, limited: Array, limit: float) -> Array:
    """Candidates [L, H] with the least sum of ``least`` whose sum of ``limited`` is at most ``limit``."""
    layers, heads, ways = table.density.shape
    picks, uses = layers * heads * ways, layers * ways
    there = np.isfinite(table.density)
    one = sparse.kron(sparse.eye(layers * heads), np.ones((1, ways)))
    at = np.arange(picks)
    use = picks + (at // (heads * ways)) * ways + np.array(table.groups)[at % ways]
    opened = sparse.coo_matrix(
        (np.repeat([1.0, -1.0], picks), (np.tile(at, 2), np.concatenate([at, use]))), (picks, picks + uses)
    )
    limits = [
        LinearConstraint(sparse.hstack([one, sparse.csr_matrix((layers * heads, uses))]), 1, 1),
        LinearConstraint(opened, -np.inf, 0), LinearConstraint(limited[None, :], -np.inf, limit),
    ]  # fmt: skip
    upper = np.concatenate([there.reshape(-1).astype(float), np.ones(uses)])
    found = milp(
        least, constraints=limits, integrality=np.ones(picks + uses), bounds=Bounds(0, upper),
        options={"time_limit": SECONDS, "mip_rel_gap": GAP},
    )  # fmt: skip
    if found.x is None:
        raise PassError(f"no plan was found: {found.message}", when="choosing candidates of sparse attention")
    choice: Array = found.x[:picks].reshape(layers, heads, ways).argmax(axis=2)
    return choice


def cheapest(table: Table) -> float:
    """Least cost of any plan, whatever it loses."""
    return table.cost(_solve(table, _costs(table), _losses(table), np.inf))
