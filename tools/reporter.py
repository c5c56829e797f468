"""Progress of long work: a bar per phase on a terminal, lines of what takes minutes elsewhere, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table


@dataclass
class PhaseRecord:
    """What one phase did; ``None`` where a column does not apply."""

    name: str
    seconds: float = 0.0
    nodes: int | None = None
    sites: int | None = None
    nbytes: int | None = None
    detail: str = ""


class Phase:
    """One running phase: report progress, fill in its record."""

    def __init__(self, record: PhaseRecord, bar: Progress, task: TaskID) -> None:
        self.record, self._bar, self._task = record, bar, task

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """``done`` of ``total`` in any unit; ``note`` is shown beside the bar."""
        self._bar.update(self._task, completed=done, total=total, note=note)

    def advance(self, step: float = 1.0) -> None:
        self._bar.advance(self._task, step)


@dataclass
class Reporter:
    """Shows phases as they run. ``quiet`` shows nothing; a bar is drawn on terminals only."""

    quiet: bool = False
    records: list[PhaseRecord] = field(default_factory=list)
    console: Console = field(default_factory=lambda: Console(stderr=True))
    noted: set[str] = field(default_factory=set)

    @property
    def plain(self) -> bool:
        """Lines are wanted: stderr is no terminal, so no bar is drawn."""
        return not self.quiet and not self.console.is_terminal

    def line(self, text: str) -> None:
        """Write a line to stderr."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Write a line that is no error, once; a quiet command leaves it out."""
        if not self.quiet and text not in self.noted:
            self.noted.add(text)
            self.line(f"note: {text}")

    @contextmanager
    def phase(self, name: str, total: float | None = None) -> Iterator[Phase]:
        """Run a phase; its time is recorded also when it fails."""
        record = PhaseRecord(name)
        self.records.append(record)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        started = time.perf_counter()
        shown = not self.quiet and self.console.is_terminal
        with Progress(*columns, console=self.console, disable=not shown, transient=False) as bar:
            task = bar.add_task(name, total=total, note="")
            try:
                yield Phase(record, bar, task)
                bar.update(task, total=1, completed=1, note="")
            finally:
                record.seconds = time.perf_counter() - started


def phase_table(records: Sequence[PhaseRecord]) -> Table:
    """The table after a compile: phase, seconds, nodes, sites rewritten, bytes; a total at the end."""
    table = Table(show_footer=True)
    table.add_column("phase", footer="total", no_wrap=True)
    table.add_column("seconds", justify="right", footer=f"{sum(r.seconds for r in records):.1f}")
    table.add_column("nodes", justify="right")
    table.add_column("sites rewritten", justify="right", footer=str(sum(r.sites or 0 for r in records)))
    table.add_column("size", justify="right", footer=human_bytes(records[-1].nbytes) if records else "")
    table.add_column("")
    for r in records:
        cells = ("" if count is None else str(count) for count in (r.nodes, r.sites))
        table.add_row(r.name, f"{r.seconds:.2f}", *cells, human_bytes(r.nbytes), r.detail)
    return table


def human_bytes(count: int | None) -> str:
    """``count`` bytes in decimal units with three digits: 1234567 -> 1.23 MB; None -> nothing."""
    if count is None:
        return ""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"
