"""The order of passes, in one place, and running them with contracts, checks and a ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fretsaw.ir import Graph, verify
from fretsaw.ir.errors import PassError
from fretsaw.passes.api import Decline, Outcome, Pass
from fretsaw.passes.canonical.cancel_transposes import cancel_transposes
from fretsaw.passes.canonical.cse import cse
from fretsaw.passes.canonical.dce import dce
from fretsaw.passes.canonical.drop_noops import drop_noops
from fretsaw.passes.canonical.fold_constants import fold_constants
from fretsaw.passes.canonical.raise_gelu import raise_gelu
from fretsaw.passes.canonical.raise_layer_norm import raise_layer_norm
from fretsaw.passes.canonical.raise_rms_norm import raise_rms_norm
from fretsaw.passes.canonical.raise_rope import raise_rope
from fretsaw.passes.canonical.raise_router import raise_router
from fretsaw.passes.canonical.widen_partial_rope import widen_partial_rope
from fretsaw.passes.evidence.check import Checker
from fretsaw.passes.fused.merge_gate_up import merge_gate_up
from fretsaw.passes.fused.merge_qkv import merge_qkv
from fretsaw.passes.fused.split_head_slices import split_head_slices
from fretsaw.passes.kit.ledger import LedgerEntry
from fretsaw.passes.packed.hoist_rows import hoist_rows
from fretsaw.passes.packed.pack_tokens import pack_tokens

PIPELINE: Mapping[str, tuple[Pass, ...]] = {
    "canonical": (
        dce,
        fold_constants,
        drop_noops,
        cse,
        raise_rms_norm,
        raise_layer_norm,
        raise_gelu,
        raise_router,
        raise_rope,
        cancel_transposes,
        widen_partial_rope,
        drop_noops,
        cse,
    ),
    "fused": (
        split_head_slices,
        merge_qkv,
        merge_gate_up,
        drop_noops,
    ),
    "packed": (
        pack_tokens,
        cancel_transposes,
        drop_noops,
        fold_constants,
        hoist_rows,
        cse,
    ),
}


@dataclass(frozen=True)
class Event:
    """Progress: a pass begins (``entry`` is None) or has ended."""

    phase: str
    name: str
    index: int
    count: int
    entry: LedgerEntry | None = None


Observer = Callable[[Event], None]


@dataclass(frozen=True)
class PipelineResult:
    """The last graph, the graph after each phase (the captured one first), and what every pass did."""

    graph: Graph
    stages: tuple[tuple[str, Graph], ...]
    ledger: tuple[LedgerEntry, ...]


def run_pipeline(
    graph: Graph,
    phases: Sequence[str] = ("canonical", "fused", "packed"),
    extra: Sequence[Pass] = (),
    observer: Observer | None = None,
    check: bool = False,
) -> PipelineResult:
    """Run the passes of ``phases`` in order, ``extra`` ones at the end of the phase that they name.

    Args:
        check: Run the graph before and after each pass on a small seeded input, where the graph is small enough.

    Raises:
        PassError: a pass missed a site that it has to reach, or broke what it promises to keep.
        VerifyError: a pass made a broken graph, or one that its phase does not allow (our bug).
    """
    plan = [(phase, p) for phase in phases for p in (*PIPELINE[phase], *(e for e in extra if e.phase == phase))]
    stages: list[tuple[str, Graph]] = [(graph.phase, graph)]
    ledger: list[LedgerEntry] = []
    checker = Checker() if check else None
    for phase in phases:
        for p in (p for where, p in plan if where == phase):
            if observer:
                observer(Event(phase, p.name, len(ledger), len(plan)))
            graph, entry = run_pass(p, graph, phase, checker)
            ledger.append(entry)
            if observer:
                observer(Event(phase, p.name, len(ledger), len(plan), entry))
        graph = replace(graph, phase=phase)
        verify(graph, when=f"at the end of phase {phase}")
        stages.append((phase, graph))
    return PipelineResult(graph, tuple(stages), tuple(ledger))


def run_pass(p: Pass, graph: Graph, phase: str, checker: Checker | None = None) -> tuple[Graph, LedgerEntry]:
    """One pass with its contract: sites reached, effect checked, numbers written down."""
    start = time.perf_counter()
    before = len(p.clears(graph)) if p.clears else 0
    outcome = p.run(graph)
    if p.clears:
        _demand_cleared(p, outcome, before)
    seconds = time.perf_counter() - start
    evidence = checker.check(p, graph, outcome.graph) if checker else {"status": "off"}
    return outcome.graph, LedgerEntry.of(p, phase, graph, outcome, before, seconds, evidence)


def _demand_cleared(p: Pass, outcome: Outcome, before: int) -> None:
    """Raise when sites that the pass has to reach are still there, with every decline."""
    assert p.clears is not None
    left = p.clears(outcome.graph)
    if not left:
        return
    missed = "\n".join(f"missed  %{n.out.name} ({n.op})  {n.loc.module}" for n in left[:20])
    declines = "\n".join(map(decline_text, _distinct(outcome.declines)[:40]))
    raise PassError(
        f"{p.name} missed {len(left)} of {before} sites",
        where=left[0].loc.module,
        when=f"pass {p.name}",
        context="\n".join(filter(None, [missed, declines])),
        hint="the declines above say what stood in the way at each node",
    )


def _distinct(declines: Sequence[Decline]) -> list[Decline]:
    seen: dict[tuple[str, str], Decline] = {}
    for decline in declines:
        seen.setdefault((decline.reason, decline.at.loc.module), decline)
    return list(seen.values())


def decline_text(decline: Decline) -> str:
    """One line: where, and why not."""
    at = decline.at
    name = f"%{at.results[0].name}" if at.results else at.op
    return f"declined  {name} ({at.op})  {at.loc.module}: {decline.reason}"
