"""What is inspected: an artifact, or the text of one graph."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.table import Table
from rich.text import Text

from fretsaw.backends.artifact import Container, validate_manifest
from fretsaw.backends.artifact.manifest import tensors
from fretsaw.backends.program.entry import StepProgram
from fretsaw.ir import Graph, parse
from fretsaw.ir.errors import ArtifactError, UsageError
from fretsaw.ir.phases import PHASES
from fretsaw.tools.report.evidence import Evidence, Record, read_evidence
from fretsaw.tools.step_program import read_step_program

IR_TEXT = ".fir"


@dataclass(frozen=True)
class Source:
    """An opened file: a container whose manifest is valid, or None and a text."""

    path: Path
    container: Container | None
    text: str = ""

    @staticmethod
    def open(path: Path) -> Source:
        """Open and check.

        Raises:
            ArtifactError: the file cannot be read, or is no artifact.
        """
        if path.suffix == IR_TEXT:
            return Source(path, None, _read(path))
        container = Container.open(path)
        validate_manifest(container.manifest, {e.name: e.nbytes for e in container.sections.values()})
        return Source(path, container)

    @cached_property
    def evidence(self) -> Evidence | None:
        """The records of the passes; None where the file has none.

        Raises:
            ArtifactError: they are malformed, or tell of other passes than the manifest.
        """
        if self.container is None or "evidence.json" not in self.container.sections:
            return None
        evidence = read_evidence(self.container.text("evidence.json"))
        listed = self.container.manifest["passes"]
        assert isinstance(listed, list)  # validated
        told, named = [r.name for r in evidence.passes], [p["name"] for p in listed]
        if told != named:
            raise ArtifactError(
                f"evidence.json tells of {len(told)} passes, the manifest of {len(named)}, or of others",
                where=str(self.path),
                hint="the file was put together from parts that do not belong together",
            )
        return evidence

    @property
    def phases(self) -> tuple[str, ...]:
        """Phases whose graph the file has, in the order of the pipeline."""
        if self.container is None:
            return (self.graph("").phase,)
        found = [name.removeprefix("ir/") for name in self.container.sections if name.startswith("ir/")]
        return tuple(sorted(found, key=lambda p: PHASES.index(p) if p in PHASES else len(PHASES)))

    def ir(self, phase: str) -> str:
        """The text of a phase; the empty name means the last one.

        Raises:
            UsageError: the file is one graph, and another phase was asked for.
            ArtifactError: the artifact has no such phase.
        """
        if self.container is not None:
            return self.container.text(f"ir/{phase or self._last()}")
        if phase:
            raise UsageError(
                f"{self.path} is the text of one graph, not an artifact with phases", hint="leave PHASE out"
            )
        return self.text

    def graph(self, phase: str) -> Graph:
        """The graph of a phase, parsed.

        Raises:
            ParseError: the text is malformed; the line is shown.
        """
        return parse(self.ir(phase))

    def _last(self) -> str:
        phases = self.phases
        if not phases:
            raise ArtifactError("there is no IR text in this artifact", where=str(self.path))
        return phases[-1]

    def program(self) -> tuple[StepProgram, list[str]]:
        """The step program, verified, and the names of the tensors that it counts.

        Raises:
            UsageError: the file is the text of one graph.
            ArtifactError: the program is malformed, or could not be run; says where.
        """
        if self.container is None:
            raise UsageError(f"{self.path} is the text of one graph; --program shows artifacts")
        return read_step_program(self.container), [tensor.name for tensor in tensors(self.container.manifest)]

    def records(self, name: str) -> list[tuple[int, Record]]:
        """Every run of the pass ``name``, with its position from 1.

        Raises:
            UsageError: no such pass; near names are given.
        """
        passes = self.evidence.passes if self.evidence else ()
        found = [(i, r) for i, r in enumerate(passes, 1) if r.name == name]
        if not found:
            names = list(dict.fromkeys(r.name for r in passes))
            near = difflib.get_close_matches(name, names, 3, 0.4) or names
            hint = (
                f"there {'is' if len(near) == 1 else 'are'} {', '.join(near)}" if near else "no evidence in this file"
            )
            raise UsageError(f"no pass {name} was run", where=str(self.path), hint=hint)
        return found

    def tables(self, pass_name: str | None = None) -> Iterator[Table | Text]:
        """What ``fretsaw inspect`` prints."""
        from fretsaw.tools.report.pass_tables import checks_line, one_pass, pass_tables
        from fretsaw.tools.tables import artifact_tables

        if pass_name is not None:
            for position, record in self.records(pass_name):
                yield from one_pass(record, position)
            return
        if self.container is None:
            from fretsaw.tools.report.graph_tables import graph_tables

            yield from graph_tables(self.graph(""))
            return
        yield from artifact_tables(self.container)
        if self.evidence is None:
            yield Text("no evidence.json: this artifact does not say what its passes did")
            return
        yield from pass_tables(self.evidence)
        yield Text(checks_line(self.evidence))

    def to_json(self) -> Mapping[str, object]:
        """One object; ``evidence`` stands as it does in the file."""
        import json

        if self.container is None:
            from fretsaw.tools.report.graph_tables import summary

            return summary(self.graph(""))
        sections = {
            e.name: {"offset": e.offset, "bytes": e.nbytes, "sha256": e.digest.hex()}
            for e in self.container.sections.values()
        }
        raw = json.loads(self.container.text("evidence.json")) if self.evidence is not None else None
        return {"manifest": self.container.manifest, "sections": sections, "evidence": raw}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"cannot read the text: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise ArtifactError(f"the text is not UTF-8: {error}", where=str(path)) from None
