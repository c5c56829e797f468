"""The order of passes, in one place, and running them with contracts, checks and a ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fretsaw.ir import Graph, Node, verify
from fretsaw.ir.errors import PassError, UsageError
from fretsaw.ir.phases import PHASES
from fretsaw.passes.api import Outcome, Pass
from fretsaw.passes.canonical.cancel_transposes import cancel_transposes
from fretsaw.passes.canonical.cse import cse
from fretsaw.passes.canonical.dce import dce
from fretsaw.passes.canonical.drop_casts import drop_casts
from fretsaw.passes.canonical.drop_noops import drop_noops
from fretsaw.passes.canonical.fold_constants import fold_constants
from fretsaw.passes.canonical.raise_attention import raise_attention
from fretsaw.passes.canonical.raise_experts import raise_experts
from fretsaw.passes.canonical.raise_gated_mlp import raise_gated_mlp
from fretsaw.passes.canonical.raise_gelu import raise_gelu
from fretsaw.passes.canonical.raise_layer_norm import raise_layer_norm
from fretsaw.passes.canonical.raise_rms_norm import raise_rms_norm
from fretsaw.passes.canonical.raise_rope import raise_rope
from fretsaw.passes.canonical.raise_router import raise_router
from fretsaw.passes.canonical.widen_partial_rope import widen_partial_rope
from fretsaw.passes.evidence.check import UNCHECKED, Checker
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.fused.fold_bias import fold_bias
from fretsaw.passes.fused.fold_norm_gain import fold_norm_gain
from fretsaw.passes.fused.merge_gate_up import merge_gate_up
from fretsaw.passes.fused.merge_qkv import merge_qkv
from fretsaw.passes.fused.split_head_slices import split_head_slices
from fretsaw.passes.kit.contract import hold
from fretsaw.passes.kit.inspector import Inspector
from fretsaw.passes.kit.ledger import Evidence, LedgerEntry
from fretsaw.passes.packed.hoist_rows import hoist_rows
from fretsaw.passes.packed.pack_segments import pack_segments
from fretsaw.passes.packed.pack_tokens import pack_tokens
from fretsaw.passes.packed.share_uniform_rows import share_uniform_rows
from fretsaw.passes.sparse.sparse_attention import sparse_attention
from fretsaw.passes.storage.store_kv import store_kv
from fretsaw.passes.storage.store_weights import store_weights

PIPELINE: Mapping[str, tuple[Pass, ...]] = {
    "canonical": (
        dce,
        fold_constants,
        drop_noops,
        drop_casts,
        cse,
        raise_attention,
        raise_rms_norm,
        raise_layer_norm,
        raise_gelu,
        raise_gated_mlp,
        raise_router,
        raise_experts,
        raise_rope,
        cancel_transposes,
        widen_partial_rope,
        drop_noops,
        cse,
    ),
    "fused": (
        fold_bias,
        split_head_slices,
        merge_qkv,
        merge_gate_up,
        drop_noops,
    ),
    "packed": (
        pack_tokens,
        pack_segments,
        share_uniform_rows,
        cancel_transposes,
        drop_noops,
        fold_constants,
        hoist_rows,
        cse,
    ),
}


# Passes that run only when somebody asks for them, at the end of their phase.
ON_REQUEST: tuple[Pass, ...] = (fold_norm_gain, sparse_attention, store_weights, store_kv)


@dataclass(frozen=True)
class Event:
    """Progress: a pass begins (``entry`` is None) or has ended."""

    phase: str
    name: str
    index: int
    count: int
    entry: LedgerEntry | None = None


Observer = Callable[[Event], None]
Dump = Callable[[str, Graph], None]


@dataclass(frozen=True)
class PipelineResult:
    """The last graph, the graph after each phase (the captured one first), and what every pass did.

    ``snapshots``, when they were asked for, has the graph after every pass, in the order of ``ledger``. ``checks`` is
    what held for the checks of all passes: inputs, limits, memory; ``attention`` what the heads of a sparse graph lose.
    """

    graph: Graph
    stages: tuple[tuple[str, Graph], ...]
    ledger: tuple[LedgerEntry, ...]
    snapshots: tuple[tuple[str, Graph], ...] = ()
    checks: Evidence = field(default_factory=lambda: UNCHECKED)
    attention: Inspector | None = None


def run_pipeline(
    graph: Graph,
    phases: Sequence[str] = ("canonical", "fused", "packed"),
    extra: Sequence[Pass] = (),
    observer: Observer | None = None,
    check: bool | EvidenceOptions = False,
    *,
    keep: bool = False,
    dump: Dump | None = None,
    debug: bool | None = None,
) -> PipelineResult:
    """Run the passes of ``phases`` in order, the requested ones of ``extra`` at the end of the phase that they name.

    A requested pass has to reach a site, unless its contract allows none. One that stands in the pipeline runs there
    with the requested options too, and what it reaches there counts.

    Args:
        check: Run the graph before and after each pass and compare; True: with the options' defaults.
        keep: Keep the graph after every pass.
        dump: Called with a name and the graph at every phase boundary and after every requested pass.
        debug: Check the rules themselves; None: as ``fretsaw.passes.kit.debug.debugging`` says.

    Raises:
        UsageError: a requested pass belongs to a phase that does not run.
        PassError: a pass missed a site that it has to reach, broke what it promises to keep, or the graph is not in
            the phase that the first of ``phases`` starts from.
        VerifyError: a pass made a broken graph, or one that its phase does not allow (our bug).
    """
    plan = plan_passes(phases, extra)
    enter(graph, phases)
    stages: list[tuple[str, Graph]] = [(graph.phase, graph)]
    ledger: list[LedgerEntry] = []
    snapshots: list[tuple[str, Graph]] = []
    hits: dict[str, tuple[Node, ...]] = {}
    checker = Checker.of(check)
    if dump:
        dump(graph.phase, graph)
    for phase in phases:
        for step in (s for s in plan if s.phase == phase):
            p = step.p
            if observer:
                observer(Event(phase, p.name, len(ledger), len(plan)))
            if observer and checker:
                checker.note = _noter(observer, Event(phase, p.name, len(ledger), len(plan)))
            outcome, entry = run_step(step, graph, hits.get(p.name, ()), checker, debug)
            graph = outcome.graph
            hits[p.name] = hits.get(p.name, ()) + outcome.hits
            ledger.append(entry)
            if keep:
                snapshots.append((p.name, graph))
            if dump and step.requested:
                dump(p.name, graph)
            if observer:
                observer(Event(phase, p.name, len(ledger), len(plan), entry))
        graph = replace(graph, phase=phase)
        verify(graph, when=f"at the end of phase {phase}")
        stages.append((phase, graph))
        if dump:
            dump(phase, graph)
    checks = checker.summary() if checker else UNCHECKED
    attention = checker.attention if checker else None
    return PipelineResult(graph, tuple(stages), tuple(ledger), tuple(snapshots), checks, attention)


def _noter(observer: Observer, event: Event) -> Callable[[str], None]:
    """Tells the observer what a check that takes long is at."""
    return lambda text: observer(replace(event, name=f"{event.name}: {text}"))


@dataclass(frozen=True)
class PlannedPass:
    """One pass in the order of a compile."""

    phase: str
    p: Pass
    requested: bool = False


def plan_passes(phases: Sequence[str], extra: Sequence[Pass]) -> list[PlannedPass]:
    """The passes of ``phases`` in order, requested ones at the end of their phase.

    Raises:
        UsageError: a phase is unknown, or a requested pass belongs to one that does not run.
    """
    for phase in phases:
        if phase not in PIPELINE:
            raise UsageError(f"there is no phase {phase} to run", hint=f"phases: {', '.join(PIPELINE)}")
    for p in extra:
        if p.phase not in phases:
            raise UsageError(
                f"{p.name} belongs to phase {p.phase}, which does not run", hint=f"phases that run: {', '.join(phases)}"
            )
    asked = {p.name: p for p in extra}
    plan: list[PlannedPass] = []
    for phase in phases:
        plan += [PlannedPass(phase, asked.get(p.name, p)) for p in PIPELINE[phase]]
        plan += [PlannedPass(phase, p, requested=True) for p in extra if p.phase == phase]
    return plan


def enter(graph: Graph, phases: Sequence[str]) -> None:
    """Check the graph that enters the first of ``phases``.

    Raises:
        PassError: its phase is not the one before, so that passes would be missing.
        VerifyError: it is broken, or breaks the spec of its phase.
    """
    verify(graph, when="entering the pipeline")
    for phase in phases[:1]:
        before = PHASES[PHASES.index(phase) - 1]
        if graph.phase not in (before, phase):
            raise PassError(
                f"phase {phase} starts from phase {before}, this graph is in phase {graph.phase}",
                where=graph.name,
                hint=f"run the phases after {graph.phase} in order: {', '.join(PIPELINE)}",
            )


def run_step(
    step: PlannedPass, graph: Graph, earlier: tuple[Node, ...], checker: Checker | None, debug: bool | None
) -> tuple[Outcome, LedgerEntry]:
    """One pass with its contract: sites reached, effect checked, numbers written down.

    Args:
        earlier: What the pass of this name reached before in the same compile.
    """
    p = step.p
    start = time.perf_counter()
    demanded = p.sites.demanded(graph) if step.requested or p.sites.standing else 0
    outcome = p.run(graph, debug=debug)
    whole = replace(outcome, hits=earlier + outcome.hits) if step.requested else outcome
    hold(p.name, p.sites, graph, whole, requested=step.requested)
    seconds = time.perf_counter() - start
    held = p if outcome.keeps is None else replace(p, keeps=outcome.keeps)
    evidence = checker.check(held, graph, outcome.graph) if checker else UNCHECKED
    entry = LedgerEntry.of(held, step.phase, graph, outcome, demanded, seconds, evidence)
    return outcome, replace(entry, requested=step.requested)
