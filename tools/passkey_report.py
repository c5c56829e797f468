"""Runs the passkey test on one artifact or two, and makes its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from fretsaw.ir.errors import UsageError
from fretsaw.tools.passkey import FILLER, Prompts, cells, summary
from fretsaw.tools.reporter import Reporter
from fretsaw.tools.scorers import ArtifactScorer


@dataclass(frozen=True)
class Wanted:
    """What to ask: every length (tokens) at every depth (percent), ``trials`` keys each; ``filler`` None: default."""

    lengths: Sequence[int]
    depths: Sequence[float]
    trials: int = 1
    seed: int = 0
    filler: str | None = None


def run_passkey(
    artifact: Path, against: Path | None, wanted: Wanted, threads: int, reporter: Reporter
) -> dict[str, object]:
    """The same prompts for both artifacts; results by path.

    Raises:
        UsageError: ``against`` is no file, or a length does not fit.
    """
    if against is not None and not against.is_file():
        raise UsageError(f"--passkey compares with another artifact, and {against} is none")
    results: dict[str, object] = {}
    with reporter.phase("load"):
        models = {path: ArtifactScorer(path, max(wanted.lengths), threads) for path in (artifact, against) if path}
    for path, scorer in models.items():
        encode = partial(scorer.model.encode, add_special_tokens=False)
        prompts = Prompts(encode, wanted.filler or FILLER, scorer.model.encode(""), wanted.seed)
        trials = [
            prompts.trial(length, depth, number)
            for length in wanted.lengths for depth in wanted.depths for number in range(wanted.trials)
        ]  # fmt: skip
        with reporter.phase(f"passkey {path.name}", total=sum(t.length for t in trials)) as phase:
            results[str(path)] = summary(list(cells(trials, scorer.session, phase.advance)))
    filler = "default" if wanted.filler is None else "text"
    return {"passkey": results, "trials": wanted.trials, "seed": wanted.seed, "filler": filler}


def passkey_tables(result: Mapping[str, object]) -> list[Table]:
    """A table per artifact: rows are lengths, columns depths."""
    tables = []
    found = result["passkey"]
    assert isinstance(found, dict)
    for name, of in found.items():
        title = f"{name}: exact {of['exact']:.0%}, NLL {of['nll']:.3g} nats a token, rank {of['rank']:.3g}"
        table = Table(title=Text(title), title_justify="left", caption="exact, NLL in nats a token, mean rank")
        table.add_column("tokens", justify="right")
        depths = sorted({cell["depth"] for cell in of["cells"]})
        for depth in depths:
            table.add_column(f"depth {depth:g} %", justify="right")
        for length in sorted({cell["length"] for cell in of["cells"]}):
            cells = [c for c in of["cells"] if c["length"] == length]
            table.add_row(f"{length:,}", *(f"{c['exact']:.0%}  {c['nll']:.2f}  {c['rank']:.1f}" for c in cells))
        tables.append(table)
    return tables
