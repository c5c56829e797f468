"""The whole answer of ``fretsaw diff``: graphs, and for two artifacts manifest, evidence and weights."""

from __future__ import annotations

import json
from dataclasses import dataclass

from fretsaw.tools.diff.changes import changes
from fretsaw.tools.diff.container import Difference, compare_data, compare_weights, told
from fretsaw.tools.diff.group import Line, grouped
from fretsaw.tools.diff.match import match
from fretsaw.tools.report.source import Source

MOST = 60  # lines of one part for people
QUIET = ("passes", "producer")  # parts of the manifest that the evidence tells in full, or that say who wrote it


@dataclass(frozen=True)
class Report:
    """Differences between two sources; all empty when there are none.

    Args:
        phases: Whose graphs were compared, of either side.
        remarks: What could not be compared.
    """

    phases: tuple[str, str]
    graph: tuple[Line, ...]
    manifest: tuple[Difference, ...] = ()
    evidence: tuple[Difference, ...] = ()
    weights: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return not (self.graph or self.manifest or self.evidence or self.weights)

    def to_json(self) -> dict[str, object]:
        return {
            "equal": self.equal,
            "phases": list(self.phases),
            "graph": [line.to_json() for line in self.graph],
            "manifest": [d.to_json() for d in self.manifest],
            "evidence": [d.to_json() for d in self.evidence],
            "weights": list(self.weights),
            "remarks": list(self.remarks),
        }

    def lines(self) -> list[str]:
        """For people: one heading per part, nothing for parts that are equal."""
        one, other = self.phases
        out: list[str] = []
        parts = {
            f"graph ({one if one == other else f'{one}, {other}'})": self.graph,
            "manifest": self.manifest,
            "evidence": self.evidence,
            "weights": self.weights,
        }
        for title, found in parts.items():
            if found:
                out += [title, *(f"  {line}" for line in found[:MOST])]
                out += [f"  ... {len(found) - MOST} more: --json has all"] if len(found) > MOST else []
        out += [] if out else ["no differences"]
        return out + [f"note: {remark}" for remark in self.remarks]


def compare(a: Source, b: Source, phase: str) -> Report:
    """Compare two files.

    Args:
        phase: Whose graphs; empty: the last of each.

    Raises:
        UsageError: a phase was asked of a file that is one graph.
        ArtifactError: a file is damaged, or has no such phase.
        ParseError: the text of a graph is malformed.
    """
    one, other = a.graph(phase), b.graph(phase)
    phases = (one.phase, other.phase)
    graph = tuple(grouped(changes(match(one, other))))
    if a.container is None or b.container is None:
        lone = a.container is not None or b.container is not None
        remarks = ("one of the two is a graph alone: manifest, evidence and weights were not compared",) if lone else ()
        return Report(phases, graph, remarks=remarks)
    manifests = [{k: v for k, v in s.manifest.items() if k not in QUIET} for s in (a.container, b.container)]
    versions = [s.manifest.get("producer") for s in (a.container, b.container)]
    evidence = [
        json.loads(s.text("evidence.json")) if "evidence.json" in s.sections else {} for s in (a.container, b.container)
    ]
    found = told(compare_data(*manifests)) + told(compare_data({"producer": versions[0]}, {"producer": versions[1]}))
    digests = [_checkpoint(m) for m in manifests]
    remarks = ()
    if digests[0] != digests[1]:
        remarks = ("the checkpoints differ: equal places of files in the graphs do not mean equal weights",)
    return Report(
        phases, graph, tuple(found), tuple(told(compare_data(*evidence))),
        tuple(compare_weights(a.container, b.container)), remarks,
    )  # fmt: skip


def _checkpoint(manifest: dict[str, object]) -> object:
    model = manifest["model"]
    assert isinstance(model, dict)  # validated
    return model["checkpoint_sha256"]
