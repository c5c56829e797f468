"""The automatic plan: candidates are measured on every head, chosen under a limit, and the choice is verified.

1. survey: one dense run over calibration text tries every candidate on every head (survey.py).
2. choose: an integer program takes the cheapest candidates within a budget of squared error (choose.py).
3. verify: the sparse model runs on text that the survey did not see, where there is enough; its KL divergence from the
   dense model is compared with the limit. Divergence grows about as the squared error does, so the next budget is the
   last one times limit over measured; after a few rounds the cheapest plan that held is taken.

Where the cost is limited instead, step 2 takes the least squared error within that cost, once, and step 3 measures it.

What is proxy and what is measured: costs are blocks and operations, losses are those of single heads on dense
activations; only the verified divergence is that of the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fretsaw.ir import Graph
from fretsaw.ir.errors import PassError
from fretsaw.passes.evidence.divergence import diverge
from fretsaw.passes.evidence.feeds import Sequence as Text
from fretsaw.passes.evidence.long import compared_rows, run_rows
from fretsaw.passes.sparse.calibrate.choose import Table, cheapest, choose, choose_within
from fretsaw.passes.sparse.calibrate.plans import Chosen
from fretsaw.passes.sparse.calibrate.report import AttentionReport, token_lists
from fretsaw.passes.sparse.calibrate.survey import Note, Survey, survey
from fretsaw.passes.sparse.options import Sparse
from fretsaw.passes.sparse.place import put_lists

Array = np.ndarray
Surveyor = Callable[[Graph, Sequence[Sparse], Text, int, Note], Survey]
FIRST_BUDGET = 0.003  # squared relative error of a layer's attention that the first round allows
MARGIN = 0.8  # of the limit that the next budget aims at
CLOSE = 0.6  # of the limit: a plan that uses that much of it is not improved any more
BUDGETS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)  # of the frontier


@dataclass(frozen=True)
class Round:
    """One verified plan.

    Args:
        budget: Squared relative error that it was allowed; the cost that it was allowed where that is limited.
        cost: Predicted, over dense attention, choosing included.
        lost: Squared relative error that it was predicted to have.
        kl: Measured, in nats a token.
        top1: Share of tokens with the dense model's most likely successor.
    """

    budget: float
    cost: float
    lost: float
    kl: float
    top1: float


@dataclass(frozen=True, eq=False)
class AutoPlan:
    """What a search found.

    Args:
        chosen: Method and options of every head that is not dense.
        taken: The round that ``chosen`` is from.
        rounds: All of them, in order.
        frontier: (budget, cost, lost) of plans that were chosen but not verified.
        methods: How many heads have each method.
    """

    chosen: Chosen
    taken: Round
    rounds: tuple[Round, ...]
    frontier: tuple[tuple[float, float, float], ...]
    methods: dict[str, int]


def auto_plan(
    graph: Graph, ids: Array, source: str, *, tokens: int, first: int, candidates: Sequence[Sparse],
    max_kl: float | None = None, max_cost: float | None = None, rounds: int = 4, note: Note = lambda text: None,
    stage: Note = lambda text: None, surveyor: Surveyor = survey,
) -> AutoPlan:  # fmt: skip
    """Search a plan for the dense packed ``graph``.

    Args:
        ids: Calibration text. The survey reads ``tokens`` behind those that plans are verified on, or the same where
            the text is no longer.
        tokens: Of a run.
        first: Rows before this position stay dense.
        max_kl: Mean divergence from the dense model that the plan may have, in nats a token, from position ``first``
            on.
        max_cost: Or what the plan may cost on that text, choosing included, over the cost of dense attention.
        rounds: Most plans that are verified where divergence is limited.
        note: Told what a run is at.
        stage: Told what begins and what it found.
        surveyor: Makes the survey, or has it.

    Raises:
        PassError: the text is too short, or no plan holds the limit.
    """
    assert (max_kl is None) != (max_cost is None), "one limit"
    tokens = min(tokens, len(ids))
    if tokens <= first + 1:
        what = f"the calibration text has {len(ids)} tokens, sparse attention begins at {first}"
        raise PassError(f"{what}: nothing could be chosen", where=source, hint="give a longer --calib")
    behind = ids[tokens : 2 * tokens] if len(ids) >= 2 * tokens else ids[:tokens]
    stage(f"survey of {len(candidates)} candidates on {tokens} tokens")
    found = surveyor(graph, tuple(candidates), Text("survey", behind, source, 0), first, note)
    table = Table.of(found)
    verify = _Verifier(graph, Text("verify", ids[:tokens], source, 0), first, note)
    if max_cost is not None:
        return _within(found, table, max_cost, verify, stage)
    assert max_kl is not None
    done: list[tuple[Round, Chosen]] = []
    low, high, budget = 0.0, np.inf, FIRST_BUDGET  # the largest budget that held, the smallest that did not
    for _ in range(rounds):
        choice = choose(table, budget)
        chosen: Chosen = chosen_of(found, table, choice)
        stage(f"verify a plan of cost {table.cost(choice):.3f}")
        kl, top1 = verify(chosen)
        done.append((Round(budget, table.cost(choice), table.lost(choice), kl, top1), chosen))
        stage(f"a plan of cost {table.cost(choice):.3f} diverges by {kl:.4g} nats a token, limit {max_kl:g}")
        low, high = (max(low, budget), high) if kl <= max_kl else (low, min(high, budget))
        if CLOSE * max_kl <= kl <= max_kl:
            break
        budget = _next(budget, kl, max_kl, low, high)
    held = [pair for pair in done if pair[0].kl <= max_kl]
    if not held:
        best = min(pair[0].kl for pair in done)
        what = f"no plan of {len(done)} holds a divergence of {max_kl:g} nats a token, the closest has {best:.4g}"
        raise PassError(what, where=source, when="searching a plan of sparse attention", hint="raise --max-kl")
    taken, chosen = min(held, key=lambda pair: pair[0].cost)
    return AutoPlan(chosen, taken, tuple(r for r, _ in done), frontier(table), _methods(found, chosen))


def _within(found: Survey, table: Table, max_cost: float, verify: _Verifier, stage: Note) -> AutoPlan:
    """The plan of least squared error within a cost, and its divergence."""
    least = cheapest(table)
    if least > max_cost:
        what = f"no plan costs {max_cost:g} of dense attention or less, the cheapest costs {least:.4g}"
        hint = (
            f"raise max_cost, or lower dense_until: rows before {found.first} of {found.text.ids.size} read everything"
        )
        raise PassError(what, where=found.text.source, when="searching a plan of sparse attention", hint=hint)
    choice = choose_within(table, max_cost)
    chosen: Chosen = chosen_of(found, table, choice)
    stage(f"verify a plan of cost {table.cost(choice):.3f}")
    kl, top1 = verify(chosen)
    taken = Round(max_cost, table.cost(choice), table.lost(choice), kl, top1)
    stage(f"a plan of cost {taken.cost:.3f}, limit {max_cost:g}, diverges by {kl:.4g} nats a token")
    return AutoPlan(chosen, taken, (taken,), frontier(table), _methods(found, chosen))


def _methods(found: Survey, chosen: Chosen) -> dict[str, int]:
    """How many heads have each method."""
    names = [options.method for options in chosen.values()]
    dense = len(found.layers) * found.heads - len(names)
    return {n: names.count(n) for n in dict.fromkeys(names)} | ({"dense": dense} if dense else {})


def _next(budget: float, kl: float, limit: float, low: float, high: float) -> float:
    """The budget whose divergence would be just under the limit, between what held and what did not."""
    aim = budget * min(max(MARGIN * limit / max(kl, 1e-12), 0.05), 20.0)
    if aim <= low:
        return low * 2 if np.isinf(high) else float(np.sqrt(low * high))
    if aim >= high:
        return high / 2 if low == 0 else float(np.sqrt(low * high))
    return aim


def frontier(table: Table) -> tuple[tuple[float, float, float], ...]:
    """Cost and loss of the best plan under a range of budgets."""
    out = []
    for budget in BUDGETS:
        choice = choose(table, budget)
        out.append((budget, table.cost(choice), table.lost(choice)))
    return tuple(out)


def chosen_of(found: Survey, table: Table, choice: Array) -> dict[tuple[int, int], Sparse]:
    """Options of every head that is not dense."""
    return {
        (table.layers[i], h): found.candidates[c]
        for i, row in enumerate(choice.tolist()) for h, c in enumerate(row) if c < len(found.candidates)
    }  # fmt: skip


class _Verifier:
    """Divergence of plans from the dense model on one text; the dense model runs once."""

    def __init__(self, graph: Graph, text: Text, first: int, note: Callable[[str], None]) -> None:
        self.graph, self.text, self.note = graph, text, note
        self.rows = compared_rows(graph, first, int(text.ids.size))
        self.dense: Array | None = None

    def __call__(self, chosen: Chosen) -> tuple[float, float]:
        """Mean divergence and agreement."""
        if not chosen:
            return 0.0, 1.0
        if self.dense is None:
            self.dense = run_rows(self.graph, self.text, self.rows, self.note)
        planned = put_lists(self.graph, Assigned(table=tuple(sorted_items(chosen)))).graph
        after = run_rows(planned, self.text, self.rows, self.note)
        found = diverge(self.dense, after, self.text.ids, self.text.ids[self.rows + 1])
        return found.mean, found.top1


def verify_plan(graph: Graph, chosen: Chosen, text: Text, first: int, note: Note) -> tuple[float, float, float]:
    """Mean divergence and agreement of a plan, and its mean density over all heads of the model."""
    kl, top1 = _Verifier(graph, text, first, note)(chosen)
    planned = put_lists(graph, Assigned(table=tuple(sorted_items(chosen)))).graph
    report = AttentionReport(text, first, note=note, tokens=token_lists(planned))
    run_rows(planned, text, compared_rows(graph, first, int(text.ids.size))[:1], note, report.look)
    dense = sum(n.op == "cached_attention" for n in planned.nodes)
    heads = [np.mean([x.density for x in row]) for row in report.layers.values()]
    return kl, top1, float(np.mean([*heads, *[1.0] * dense]))


def sorted_items(chosen: Chosen) -> list[tuple[int, int, Sparse]]:
    return [(layer, head, chosen[layer, head]) for layer, head in sorted(chosen)]


@dataclass(frozen=True)
class Assigned(Sparse):
    """A plan that was never a file."""

    table: tuple[tuple[int, int, Sparse], ...] = ()

    def parts(self, layer: int, heads: int) -> tuple[tuple[tuple[int, ...], Sparse], ...]:
        from fretsaw.passes.sparse.methods.dense import Dense

        named = {head: options for n, head, options in self.table if n == layer}
        options = [named.get(h, Dense()) for h in range(heads)]
        return tuple((tuple(h for h in range(heads) if options[h] == own), own) for own in dict.fromkeys(options))

    def planned(self) -> tuple[int, ...]:
        return tuple(sorted({n for n, _, _ in self.table}))
