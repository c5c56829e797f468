"""``sparse_attention:method=auto``: search a plan on calibration text before the passes run, and stand it in."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from fretsaw.ir import Graph
from fretsaw.ir.errors import PassError, UsageError
from fretsaw.passes.evidence.feeds import Sequence
from fretsaw.passes.kit.options import plain
from fretsaw.passes.kit.prepare import Preparation, Search
from fretsaw.passes.sparse.calibrate.auto import AutoPlan, Round, Surveyor, auto_plan, verify_plan
from fretsaw.passes.sparse.calibrate.patterns import choose_patterns, pattern_candidates
from fretsaw.passes.sparse.calibrate.plans import Chosen, plan_toml
from fretsaw.passes.sparse.calibrate.plot import Series, scatter
from fretsaw.passes.sparse.calibrate.saved import SavedSurvey
from fretsaw.passes.sparse.calibrate.spaces import space_candidates
from fretsaw.passes.sparse.calibrate.spans import choose_spans
from fretsaw.passes.sparse.calibrate.survey import survey
from fretsaw.passes.sparse.methods.auto import HELD_TO_DENSITY, Auto
from fretsaw.passes.sparse.methods.plan import Plan
from fretsaw.passes.sparse.options import Sparse

MAX_KL = 0.01


def plan_search(options: Sparse) -> Search | None:
    """The search that ``method=auto`` stands for; None of other methods."""
    return Search("search plan", lambda given: planned(options, given)) if isinstance(options, Auto) else None


def planned(options: Auto, given: Preparation) -> Sparse:
    """The options of the plan that the search found, which is written to a file.

    Raises:
        UsageError: there is no calibration text, or a survey that is of something else.
        PassError: no plan holds the limit, or the text is too short.
    """
    if not given.calib:
        what = "sparse_attention:method=auto searches on calibration text, and none was given"
        raise UsageError(what, hint="--calib FILE")
    given.stage("passes of the dense model")
    graph = given.graph()
    path = Path(options.write) if options.write else given.output.with_name(f"{given.output.stem}.plan.toml")
    found = search(graph, options, given)
    write_plan(path, found, options, given.calib_source)
    given.stage(f"wrote {path}")
    if not found.chosen:
        what = "no candidate is cheaper than dense attention within the limit: every head would stay dense"
        hint = "lower max_cost" if options.max_cost else "raise --max-kl, or leave auto out"
        raise PassError(what, when="searching a plan of sparse attention", hint=hint)
    return Plan(layers=options.layers, dense_layers=options.dense_layers, plan=str(path))


def search(graph: Graph, options: Auto, given: Preparation) -> AutoPlan:
    """The plan of the space that the options name, for a packed dense graph."""
    ids, source, first = np.asarray(given.calib, np.int64), given.calib_source, options.dense_until
    note, stage = given.note, given.stage
    surveyor: Surveyor = SavedSurvey(Path(options.survey)) if options.survey else survey
    if options.space not in HELD_TO_DENSITY:
        limit = None if options.max_cost else options.max_kl or given.max_kl or MAX_KL
        return auto_plan(
            graph, ids, source, tokens=options.tokens, first=first,
            candidates=_within_layers(space_candidates(options.space, first), options), max_kl=limit,
            max_cost=options.max_cost or None, note=note, stage=stage, surveyor=surveyor,
        )  # fmt: skip
    tokens = min(options.tokens, len(ids))
    text = Sequence("survey", ids[-tokens:], source, 0)
    patterns = options.space == "minference"
    ways = _within_layers(pattern_candidates(tokens, options.density, first) if patterns else (), options)
    stage(f"survey of {f'{len(ways)} patterns' if patterns else 'attention masses'} on {tokens} tokens")
    found = surveyor(graph, ways, text, first, note)
    chosen: Chosen = (
        choose_patterns(found) if patterns else choose_spans(found, options.density, _kv_heads(graph)).chosen
    )
    chosen = {at: own for at, own in chosen.items() if _wanted(at[0], options)}
    stage(f"verify a plan of {len(chosen)} heads")
    kl, top1, density = verify_plan(graph, chosen, Sequence("verify", ids[:tokens], source, 0), first, note)
    stage(f"a plan of density {density:.3f} diverges by {kl:.4g} nats a token")
    names = [o.method for o in chosen.values()]
    taken = Round(options.density, density, 0.0, kl, top1)
    return AutoPlan(chosen, taken, (taken,), (), {n: names.count(n) for n in dict.fromkeys(names)})


def _within_layers(ways: tuple[Sparse, ...], options: Auto) -> tuple[Sparse, ...]:
    """Candidates for the layers that may become sparse."""
    return tuple(replace(way, layers=options.layers, dense_layers=options.dense_layers) for way in ways)


def _wanted(layer: int, options: Auto) -> bool:
    return layer not in options.dense_layers and (not options.layers or layer in options.layers)


def _kv_heads(graph: Graph) -> int:
    append = next(n for n in graph.nodes if n.op == "kv_append")
    heads = append["k"].tensor.shape[1]
    assert isinstance(heads, int)
    return heads


def write_plan(path: Path, found: AutoPlan, options: Auto, source: str) -> None:
    """The plan as TOML, the search beside it as ``.json``, and its frontier as ``.svg``."""
    taken = found.taken
    methods = ", ".join(f"{n} {m}" for m, n in found.methods.items())
    about = (
        f"Found by sparse_attention:method=auto,space={options.space} on {source}",
        f"Heads: {methods}",
        f"Cost {taken.cost:.3f} of dense attention; KL {taken.kl:.4g} nats a token, top-1 {taken.top1:.4f}, "
        f"from token {options.dense_until} on",
    )
    path.write_text(plan_toml(found.chosen, about), encoding="utf-8")
    data = {
        "options": plain(options), "text": source, "taken": asdict(taken), "methods": found.methods,
        "rounds": [asdict(r) for r in found.rounds],
        "frontier": [{"budget": b, "cost": c, "lost": x} for b, c, x in found.frontier],
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if found.frontier:
        points = tuple((c, max(x, 1e-6), "") for _, c, x in found.frontier)
        tried = tuple((r.cost, max(r.lost, 1e-6), f"KL {r.kl:.2g}") for r in found.rounds)
        plot = scatter(
            [Series("best plans", points), Series("verified", tried, line=False)],
            "Plans of the search", "cost over dense attention", "squared relative error of attention",
        )  # fmt: skip
        path.with_suffix(".svg").write_text(plot, encoding="utf-8")
