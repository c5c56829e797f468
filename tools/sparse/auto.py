"""``sparse_attention:method=auto``: search a plan on calibration text before the passes run, and ask for it instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from fretsaw.ir import Graph
from fretsaw.ir.errors import PassError, UsageError
from fretsaw.passes.api import Pass
from fretsaw.passes.evidence.feeds import Sequence
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.kit.options import plain
from fretsaw.passes.pipeline import run_pipeline
from fretsaw.passes.sparse.calibrate.auto import AutoPlan, Round, auto_plan, default_candidates, verify_plan
from fretsaw.passes.sparse.calibrate.patterns import choose_patterns, pattern_candidates
from fretsaw.passes.sparse.calibrate.plans import Chosen, plan_toml
from fretsaw.passes.sparse.calibrate.spans import choose_spans
from fretsaw.passes.sparse.calibrate.survey import survey
from fretsaw.passes.sparse.methods.auto import Auto
from fretsaw.passes.sparse.methods.xattention import XAttention
from fretsaw.passes.sparse.options import Sparse
from fretsaw.tools.sparse.plot import Series, scatter

Note = Callable[[str], None]
MAX_KL = 0.01
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)


def is_auto(p: Pass) -> bool:
    """The pass asks for a search."""
    return isinstance(p.options, Auto)


def resolve_auto(
    passes: tuple[Pass, ...], captured: Graph, evidence: EvidenceOptions, output: Path, note: Note
) -> tuple[Pass, ...]:
    """The passes with every search replaced by the plan that it found, which is written to a file.

    Args:
        captured: The graph that the pipeline starts from.
        evidence: With the tokens of the calibration text.
        output: The artifact; the plan is written beside it unless the options say where.

    Raises:
        UsageError: there is no calibration text.
        PassError: no plan holds the limit, or the text is too short.
    """
    out: list[Pass] = []
    for i, p in enumerate(passes):
        if not isinstance(p.options, Auto):
            out.append(p)
            continue
        if not evidence.calib:
            what = "sparse_attention:method=auto searches on calibration text, and none was given"
            raise UsageError(what, hint="--calib FILE")
        note("the dense model")
        graph = run_pipeline(captured, extra=passes[:i]).graph
        path = Path(p.options.write) if p.options.write else output.with_name(f"{output.stem}.plan.toml")
        found = search(graph, p.options, evidence, note)
        write_plan(path, found, p.options, evidence)
        given: dict[str, object] = {"method": "plan", "plan": str(path)}
        shared = {k: v for k, v in (("layers", p.options.layers), ("dense_layers", p.options.dense_layers)) if v}
        if not found.chosen:
            what = "no candidate is cheaper than dense attention within the limit: every head would stay dense"
            raise PassError(what, when="searching a plan of sparse attention", hint="raise --max-kl, or leave auto out")
        out.append(replace(p, options=Sparse()).configured(given | shared))
    return tuple(out)


def search(graph: Graph, options: Auto, evidence: EvidenceOptions, note: Note) -> AutoPlan:
    """The plan of the space that the options name, for a packed dense graph."""
    ids, source, first = np.asarray(evidence.calib, np.int64), evidence.calib_source, options.dense_until
    limit = options.max_kl or evidence.max_kl or MAX_KL
    if options.space in ("mixed", "xattention"):
        ways: tuple[Sparse, ...] = default_candidates(first)
        if options.space == "xattention":
            ways = tuple(XAttention(threshold=t, dense_until=first) for t in THRESHOLDS)
        return auto_plan(
            graph, ids, source, max_kl=limit, tokens=options.tokens, first=first, candidates=ways, note=note
        )
    tokens = min(options.tokens, len(ids))
    text = Sequence("survey", ids[-tokens:], source, 0)
    patterns = options.space == "minference"
    found = survey(graph, pattern_candidates(tokens, options.density, first) if patterns else (), text, first, note)
    chosen: Chosen = (
        choose_patterns(found) if patterns else choose_spans(found, options.density, _kv_heads(graph)).chosen
    )
    kl, top1, density = verify_plan(graph, chosen, Sequence("verify", ids[:tokens], source, 0), first, note)
    names = [o.method for o in chosen.values()]
    taken = Round(options.density, density, 0.0, kl, top1)
    return AutoPlan(chosen, taken, (taken,), (), {n: names.count(n) for n in dict.fromkeys(names)})


def _kv_heads(graph: Graph) -> int:
    append = next(n for n in graph.nodes if n.op == "kv_append")
    heads = append["k"].tensor.shape[1]
    assert isinstance(heads, int)
    return heads


def write_plan(path: Path, found: AutoPlan, options: Auto, evidence: EvidenceOptions) -> None:
    """The plan as TOML, the search beside it as ``.json``, and its frontier as ``.svg``."""
    taken = found.taken
    methods = ", ".join(f"{n} {m}" for m, n in found.methods.items())
    about = (
        f"Found by sparse_attention:method=auto,space={options.space} on {evidence.calib_source}",
        f"Heads: {methods}",
        f"Cost {taken.cost:.3f} of dense attention; KL {taken.kl:.4g} nats a token, top-1 {taken.top1:.4f}, "
        f"from token {options.dense_until} on",
    )
    path.write_text(plan_toml(found.chosen, about), encoding="utf-8")
    data = {
        "options": plain(options), "text": evidence.calib_source, "taken": asdict(taken), "methods": found.methods,
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
