"""The graph that a pass meets: a checkpoint, an artifact or an IR text, run up to where the pass stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fretsaw.ir import Graph, verify
from fretsaw.ir.errors import UsageError
from fretsaw.ir.phases import PHASES

if TYPE_CHECKING:
    from fretsaw.passes.api import Pass


def load_graph(path: Path, phase: str) -> Graph:
    """A graph to start from: of a checkpoint the captured one, of an artifact the last one before ``phase``.

    Raises:
        CaptureError, ArtifactError, ParseError: the source cannot be read.
        UsageError: ``path`` is an IR text of a later phase.
    """
    if path.is_dir():
        from fretsaw.frontend.checkpoint import load_checkpoint
        from fretsaw.tools.capturing import captured_graph

        return captured_graph(load_checkpoint(path)).graph
    from fretsaw.tools.report.source import Source

    source = Source.open(path)
    if source.container is None:
        graph = source.graph("")
        if _index(graph.phase) > _index(phase):
            raise UsageError(
                f"{path} is in phase {graph.phase}, the pass belongs to {phase}",
                hint="give the text of an earlier phase",
            )
        return graph
    earlier = [name for name in source.phases if _index(name) < _index(phase)]
    if not earlier:
        raise UsageError(f"{path} has no graph before phase {phase}", hint="give the checkpoint directory")
    return source.graph(earlier[-1])


def stand(graph: Graph, p: Pass) -> Graph:
    """``graph`` after all passes that come before the first place of ``p``. A graph that is in its phase already is
    taken as it is.

    Raises:
        PassError, VerifyError: an earlier pass fails.
    """
    from fretsaw.passes.pipeline import PIPELINE, plan_passes, run_pipeline, run_step

    if graph.phase == p.phase:
        return graph
    phases = [name for name in PIPELINE if _index(graph.phase) < _index(name) <= _index(p.phase)]
    if phases[:-1]:
        graph = run_pipeline(graph, phases[:-1]).graph
    else:
        verify(graph, when="entering the pipeline")
    standing = any(q.name == p.name for q in PIPELINE[p.phase])
    for step in plan_passes([p.phase], () if standing else (p,)):
        if step.p.name == p.name:
            return graph
        graph = run_step(step, graph, (), None, None)[0].graph
    return replace(graph, phase=p.phase)


def _index(phase: str) -> int:
    if phase not in PHASES:
        raise UsageError(f"there is no phase {phase}", hint=f"phases: {', '.join(PHASES)}")
    return PHASES.index(phase)
