"""Tables of what the passes did: one line a pass, what it did to the cost, and one pass with all its sites."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from fretsaw.tools.report.evidence import Evidence, Record
from fretsaw.tools.report.words import arrow, check_numbers, count, number, plain, scalar, settings, size
from fretsaw.tools.tables import make_table

UNCHECKED = "unchecked: compiled with --no-check"


def pass_tables(evidence: Evidence) -> Iterator[Table]:
    """All passes, and those that changed what a run costs."""
    columns = ("phase", "pass", "keeps", "sites hit", "demanded", "declined", "nodes", "check")
    rows = [_row(record) for record in evidence.passes]
    yield make_table("passes", columns, rows, right=(3, 4, 5, 6))
    moved = [r for r in evidence.passes if r.before and r.after and r.before != r.after]
    if moved:
        yield make_table(
            "passes that changed the cost of a run",
            ("pass", "FLOPs", "weights", "activations", "parameters"),
            [_cost_row(r) for r in moved],
            right=(1, 2, 3, 4),
        )


def checks_line(evidence: Evidence) -> str:
    """One line on the checks of the whole compile: how many passes were checked, or that none was."""
    if evidence.unchecked:
        return UNCHECKED
    passed = sum(r.status == "passed" for r in evidence.passes)
    reasons: dict[str, int] = {}
    for r in evidence.passes:
        if r.status != "passed":
            key = re.sub(r" \([^()]*\)$", "", r.status) or "no check written down"  # without what differs by pass
            reasons[key] = reasons.get(key, 0) + 1
    rest = [f"{n} {plain(reason)}" for reason, n in reasons.items()]
    return f"checks{_how(evidence.checks)}: " + ", ".join([f"{passed} of {len(evidence.passes)} passes passed", *rest])


def _how(checks: Mapping[str, object]) -> str:
    """Mode, text and limits of the checks; digests are left to ``--json``."""
    said = {"mode": "{}", "calibration_tokens": "{} tokens", "calibration_source": "of {}", "max_kl": "KL at most {}",
            "min_top1": "top-1 at least {}"}  # fmt: skip
    words = [text.format(scalar(checks[key])) for key, text in said.items() if key in checks]
    return f" ({', '.join(words).replace(' tokens, of', ' tokens of')})" if words else ""


def one_pass(record: Record, position: int) -> Iterator[Table]:
    """Everything that the ledger has on one pass, each site and each decline on its own line."""
    yield make_table(f"{record.phase}, pass {position}: {record.name}", ("", ""), facts(record))
    if record.sites:
        yield make_table(f"{len(record.sites)} sites", ("", "module path"), _numbered(record.sites), right=(0,))
    if record.declined:
        rows = [(d.node, d.op, d.module, d.reason) for d in record.declined]
        yield make_table(f"{len(rows)} declined", ("node", "op", "module path", "reason"), rows)


def facts(record: Record) -> list[tuple[str, str]]:
    """Name and value of everything but the lists."""
    rows = [
        ("keeps", record.keeps),
        ("origin", (record.origin or "not written down") + (", requested by name" if record.requested else "")),
        ("options", settings(record.options) or "none"),
        ("sites hit", number(record.hit)),
        ("sites demanded", number(record.demanded) if record.demanded else "none"),
        ("declined", number(len(record.declined))),
        ("sweeps", number(record.sweeps)),
        ("nodes", arrow(record.nodes_before, record.nodes_after, number)),
        ("check", check_text(record)),
    ]
    return rows + [(name, text) for name, text in costs(record).items()]


def costs(record: Record) -> Mapping[str, str]:
    """FLOPs, bytes and parameters before and after, as text; empty where the artifact has none."""
    if record.before is None or record.after is None:
        return {}
    b, a = record.before, record.after
    return {
        "FLOPs": arrow(b.flops, a.flops, count),
        "weights": arrow(b.weight_bytes, a.weight_bytes, size),
        "activations": arrow(b.activation_bytes, a.activation_bytes, size),
        "parameters": arrow(b.parameters, a.parameters, count),
    }


def check_text(record: Record, *, brief: bool = False) -> str:
    """Status and numbers of the check."""
    if record.status == "off":
        return UNCHECKED
    numbers = check_numbers(record.check, brief=brief)
    return f"{record.status} ({numbers})" if numbers else record.status


def _row(record: Record) -> tuple[str, ...]:
    extra = [record.origin] if record.origin not in ("", "built-in") else []
    extra += ["requested"] if record.requested else []
    extra += [settings(record.options)] if record.options else []
    name = "\n".join([plain(record.name), *(f"  {plain(e)}" for e in extra)])
    before, after = record.nodes_before, record.nodes_after
    nodes = number(before) if before == after else f"{number(before)} → {number(after)}"
    demanded = number(record.demanded) if record.demanded else ""
    return (
        record.phase, name, record.keeps, number(record.hit), demanded, number(len(record.declined)), nodes,
        check_text(record, brief=True),
    )  # fmt: skip


def _cost_row(record: Record) -> tuple[str, ...]:
    return record.name, *costs(record).values()


def _numbered(texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(str(i), text) for i, text in enumerate(texts, 1)]
