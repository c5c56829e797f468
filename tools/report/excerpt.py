"""What became of one site of a pass: the IR of its module before and after the phase, as a diff.

An artifact has the graph after each phase, not after each pass, so other passes of the phase show too; lines that the
pass itself touched are marked.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fretsaw.ir import Graph, Node
from fretsaw.ir.printer import node_text
from fretsaw.passes.pipeline import PIPELINE
from fretsaw.tools.report.evidence import Record
from fretsaw.tools.report.words import clip, plain

MOST_LINES = 60
MOST_LETTERS = 400


@dataclass(frozen=True)
class Line:
    """``sign`` is ``-``, ``+`` or a blank; ``touched``: by the pass in question."""

    sign: str
    text: str
    touched: bool


@dataclass(frozen=True)
class Excerpt:
    """``before`` and ``after`` are names of phases, ``module`` the path that all lines come from."""

    module: str
    before: str
    after: str
    lines: tuple[Line, ...]
    left_out: int


def excerpt(record: Record, graphs: Mapping[str, Graph]) -> Excerpt | None:
    """The diff at the first site of ``record`` whose lines changed, or None.

    Args:
        graphs: Graph of each phase, in order.
    """
    phases = list(graphs)
    if not record.sites or record.phase not in phases[1:]:
        return None
    before, after = phases[phases.index(record.phase) - 1], record.phase
    for site in list(dict.fromkeys(record.sites))[:8]:
        module = _module(site, graphs[after], graphs[before])
        lines = _diff(_under(graphs[before], module), _under(graphs[after], module), names_of(record.name))
        if any(line.sign != " " for line in lines):
            return Excerpt(module, before, after, tuple(lines[:MOST_LINES]), max(0, len(lines) - MOST_LINES))
    return None


def names_of(name: str) -> frozenset[str]:
    """The pass and, for a group, its rules: what locations in the IR call it."""
    members = (m.name for passes in PIPELINE.values() for p in passes if p.name == name for m in p.members)
    return frozenset([name, *members])


def _module(site: str, *graphs: Graph) -> str:
    """A site is a module path, or the name of a value where the node has none."""
    if not site.startswith("%"):
        return site
    for graph in graphs:
        for node in graph.nodes:
            if any(v.name == site[1:] for v in node.results):
                return node.loc.module
    return ""


def _under(graph: Graph, module: str) -> Sequence[Node]:
    inner = module + "."
    return [n for n in graph.nodes if n.loc.module == module or n.loc.module.startswith(inner)]


def _diff(before: Sequence[Node], after: Sequence[Node], names: frozenset[str]) -> list[Line]:
    """Lines that changed with two lines around them; ``...`` where lines are left out."""
    old, new = [_text(n) for n in before], [_text(n) for n in after]
    lines: list[Line] = []
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(2):
        lines += [Line(" ", "...", False)] if lines or group[0][1] > 0 else []
        for tag, a, b, c, d in group:
            if tag == "equal":
                lines += [Line(" ", text, False) for text in old[a:b]]
            else:
                lines += [Line("-", text, False) for text in old[a:b]]
                lines += [Line("+", new[i], not names.isdisjoint(after[i].loc.rules)) for i in range(c, d)]
    return lines


def _text(node: Node) -> str:
    return clip(plain(node_text(node).partition("  // ")[0]), MOST_LETTERS)
