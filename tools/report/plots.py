"""The ledger's numbers as plots: rows of HTML text with an SVG bar each, so that text keeps its size on any screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fretsaw.tools.report.evidence import Record
from fretsaw.tools.report.svg import element
from fretsaw.tools.report.words import arrow, clip, count, number, plain, size

Pick = Callable[[Record], tuple[int, int] | None]
LABEL = 26  # letters
COSTS: Sequence[tuple[str, str, Callable[[int], str]]] = (
    ("FLOPs of a run", "flops", count),
    ("Bytes of weights", "weight_bytes", size),
    ("Bytes of activations", "activation_bytes", size),
    ("Parameters", "parameters", count),
)


@dataclass(frozen=True)
class Plot:
    """A title, what a row shows, its rows (label, full label, bar, text), and what was left out."""

    title: str
    caption: str
    rows: tuple[tuple[str, str, Markup, str], ...]
    left_out: str = ""


def plots(passes: Sequence[Record]) -> list[Plot]:
    """All plots that the records have numbers for."""
    found = [_bars("Nodes", passes, lambda r: (r.nodes_before, r.nodes_after), number)]
    found += [_bars(title, passes, _of_cost(name), word) for title, name, word in COSTS]
    found.append(_errors(passes))
    return [plot for plot in found if plot is not None]


def _of_cost(name: str) -> Pick:
    def pick(r: Record) -> tuple[int, int] | None:
        return (getattr(r.before, name), getattr(r.after, name)) if r.before and r.after else None

    return pick


def _bars(title: str, passes: Sequence[Record], pick: Pick, word: Callable[[int], str]) -> Plot | None:
    """Before and after of every pass that changed the number."""
    known = [(r, pair) for r in passes if (pair := pick(r)) is not None]
    moved = [(r, pair) for r, pair in known if pair[0] != pair[1]]
    if not known:
        return None
    most = max(max(pair) for _, pair in known) or 1
    rows = tuple(
        (clip(plain(r.name), LABEL), plain(r.name), _bar(before / most, after / most), arrow(before, after, word))
        for r, (before, after) in moved
    )
    same = len(known) - len(moved)
    held = word(known[-1][1][1])
    left_out = f"{same} of {len(known)} passes did not change it" if moved else f"{held}: no pass changed it"
    return Plot(title, "before (pale) and after each pass", rows, left_out)


def _bar(before: float, after: float) -> Markup:
    return element(
        "svg",
        {"class": "bar", "width": "100%", "height": 18.0, "aria-hidden": "true"},
        element("rect", {"class": "before", "y": 1.0, "width": f"{100 * before:.2f}%", "height": 7.0, "rx": 2.0}),
        element("rect", {"class": "after", "y": 9.0, "width": f"{100 * after:.2f}%", "height": 8.0, "rx": 2.0}),
    )


def _errors(passes: Sequence[Record]) -> Plot | None:
    """Error of each check against its bound, on a logarithmic axis. Errors of zero stand at its left end."""
    points = [(r, *found) for r in passes if (found := error_and_bound(r)) is not None]
    exponents = [math.log10(v) for _, _, error, bound in points for v in (error, bound) if v is not None and v > 0]
    if not exponents:
        return None
    low, high = math.floor(min(exponents)) - 1, math.ceil(max(exponents)) + 1

    def place(value: float) -> float:
        return 100 * (math.log10(value) - low) / (high - low) if value > 0 else 0.0

    rows = []
    for r, key, error, bound in points:
        limit = None if bound is None else place(bound)
        text = f"{key} {error:.2g}" + (f", bound {bound:.2g}" if bound is not None else "")
        rows.append((clip(plain(r.name), LABEL), plain(r.name), _dot(place(error), limit, high - low), text))
    caption = f"dot: error (zero at the left end), bar: bound; logarithmic from 1e{low} to 1e{high}, a tick a decade"
    return Plot("Error of the checks against their bounds", caption, tuple(rows))


def error_and_bound(record: Record) -> tuple[str, float, float | None] | None:
    """Name, value and bound of the number that decided a check, or None. Finite, the bound over 0."""
    for key, limit in (("kl", "max_kl"), ("max_error_f64", "bound_f64"), ("max_error", "bound")):
        error, bound = record.check.get(key), record.check.get(limit)
        if isinstance(error, (int, float)) and _real(error) and error >= 0:
            held = isinstance(bound, (int, float)) and _real(bound) and bound > 0
            return key, float(error), float(bound) if held and isinstance(bound, (int, float)) else None
    return None


def _real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _dot(error: float, bound: float | None, decades: int) -> Markup:
    every = max(1, decades // 40)  # of a hostile range
    ticks = [
        element("line", {"class": "tick", "x1": f"{100 * i / decades:.2f}%", "x2": f"{100 * i / decades:.2f}%",
                         "y1": 6.0, "y2": 12.0})
        for i in range(0, decades + 1, every)
    ]  # fmt: skip
    marks = [element("circle", {"class": "error", "cx": f"{error:.2f}%", "cy": 9.0, "r": 4.5})]
    if bound is not None:
        at = f"{bound:.2f}%"
        marks = [
            element("line", {"class": "room", "x1": f"{error:.2f}%", "x2": at, "y1": 9.0, "y2": 9.0}),
            element("line", {"class": "bound", "x1": at, "x2": at, "y1": 1.0, "y2": 17.0}),
            *marks,
        ]
    return element("svg", {"class": "bar", "width": "100%", "height": 18.0, "aria-hidden": "true"}, *ticks, *marks)
