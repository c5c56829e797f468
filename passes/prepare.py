"""Running what requested passes have to search for before the pipeline runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fretsaw.ir import Graph
from fretsaw.passes.api import Pass
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.kit.inspector import Note
from fretsaw.passes.kit.prepare import Preparation
from fretsaw.passes.pipeline import run_pipeline


def prepare_passes(
    passes: Sequence[Pass], captured: Graph, evidence: EvidenceOptions, output: Path, note: Note,
    stage: Note = lambda text: None,
) -> tuple[Pass, ...]:  # fmt: skip
    """The passes with the options that their searches found.

    Args:
        captured: The graph that the pipeline starts from.
        evidence: With the tokens of the calibration text.
        output: The artifact that is being made.
        note: Told what a long run is at.
        stage: Told what begins, and what was found.

    Raises:
        UsageError, PassError: as the searches say.
    """
    out: list[Pass] = []
    for i, p in enumerate(passes):
        search = p.search
        if search is None:
            out.append(p)
            continue
        earlier = tuple(passes[:i])
        given = Preparation(
            lambda earlier=earlier: run_pipeline(captured, extra=earlier).graph,  # type: ignore[misc]
            evidence.calib, evidence.calib_source, evidence.max_kl, output, note, stage,
        )  # fmt: skip
        out.append(replace(p, options=search.run(given)))
    return tuple(out)
