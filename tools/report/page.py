"""``fretsaw inspect --html``: one page that needs no network, runs no script but its own, and escapes every string.

The policy in its head allows only this script and this style, by their digests, so that a name that looked like a
script could not run even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from fretsaw.ir import Graph
from fretsaw.tools.report.drawing import MOST_NODES, Artist
from fretsaw.tools.report.evidence import Record
from fretsaw.tools.report.excerpt import Excerpt, excerpt, names_of
from fretsaw.tools.report.graph_tables import (
    flops,
    graph_rows,
    ops_text,
    parameters,
    read_consts,
    run_tokens,
    weight_bytes,
)
from fretsaw.tools.report.layers import Group, folded_paths, groups_of
from fretsaw.tools.report.pass_tables import checks_line, facts
from fretsaw.tools.report.plots import plots
from fretsaw.tools.report.source import Source
from fretsaw.tools.report.words import count, number, plain, size
from fretsaw.tools.tables import memory_rows, model_rows, variant_rows

MOST_GROUPS = 40  # of a phase that are drawn; a model whose layers all differ lists the rest
MOST_PATHS = 60  # of a pass
Pairs = Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class GroupView:
    """One group of alike blocks: label, facts in a line, drawing (None: too many), and its layers."""

    label: str
    facts: str
    ops: str
    drawing: Markup | None
    layers: tuple[int, ...]


@dataclass(frozen=True)
class PhaseView:
    """One phase: its facts, its groups, and (layer, index of its group) for every layer in order."""

    name: str
    facts: str
    groups: tuple[GroupView, ...]
    strip: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PassView:
    """One pass: the record, its facts, and its sites and declines with alike layers folded."""

    record: Record
    facts: Pairs
    sites: Pairs
    declines: Pairs
    excerpt: Excerpt | None
    rules: str


def render(source: Source) -> str:
    """The page as text.

    Raises:
        ParseError: a phase's text is malformed.
        ArtifactError: the evidence is.
    """
    graphs = {phase: source.graph(phase if source.container else "") for phase in source.phases}
    evidence = source.evidence
    records = evidence.passes if evidence else ()
    style, script = _asset("page.css"), _asset("page.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["plain"] = plain
    return environment.from_string(_asset("page.html.j2")).render(
        title=plain(source.path.name),
        policy=f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'",
        style=Markup(style),
        script=Markup(script),
        checks=checks_line(evidence) if evidence else "no evidence in this file",
        unchecked=bool(evidence and evidence.unchecked),
        tables=_tables(source, graphs),
        phases=[_phase(name, graph) for name, graph in graphs.items()],
        touched=_touched(graphs),
        passes=[_pass(record, graphs) for record in records],
        plots=plots(records),
    )


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _tables(source: Source, graphs: Mapping[str, Graph]) -> list[tuple[str, Pairs]]:
    if source.container is None:
        return [("graph", graph_rows(graph)) for graph in graphs.values()]
    manifest = source.container.manifest
    return [
        ("model", model_rows(manifest, source.container.header.file_bytes)),
        ("memory plan", memory_rows(manifest)),
        ("variants, best first", variant_rows(manifest, source.container)),
    ]


def _phase(name: str, graph: Graph) -> PhaseView:
    artist = Artist.of(graph)
    groups = groups_of(graph, rules=True)
    views = tuple(_group(graph, g, artist if i < MOST_GROUPS else None) for i, g in enumerate(groups))
    strip = sorted((n, i) for i, g in enumerate(groups) for n in g.numbers)
    consts = read_consts(graph, graph.nodes)
    told = (
        f"{number(len(graph.nodes))} nodes, {_cost_text(graph, parameters(graph, consts), weight_bytes(graph, consts))}"
    )
    return PhaseView(plain(name), told, views, tuple(strip))


def _group(graph: Graph, group: Group, artist: Artist | None) -> GroupView:
    nodes = group.block.nodes
    consts = read_consts(graph, nodes)
    each = " each" if len(group.blocks) > 1 else ""
    held = f", {count(parameters(graph, consts))} parameters, {size(weight_bytes(graph, consts))}" if consts else ""
    work = sum(flops(graph, nodes))
    told = f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}{held}{f', {count(work)}FLOP' if work else ''}{each}"
    drawing = artist.draw(group.block) if artist is not None and len(nodes) <= MOST_NODES else None
    return GroupView(plain(group.label), told, ops_text(nodes), drawing, group.numbers)


def _cost_text(graph: Graph, elements: int, held: int) -> str:
    work = count(sum(flops(graph, graph.nodes)))
    return f"{count(elements)} parameters, {size(held)} of weights, {work}FLOP at {run_tokens(graph)} tokens"


def _touched(graphs: Mapping[str, Graph]) -> list[str]:
    """Names of all rules in any location, for the selector."""
    return list(dict.fromkeys(plain(r) for g in graphs.values() for n in g.nodes for r in n.loc.rules))[:200]


def _pass(record: Record, graphs: Mapping[str, Graph]) -> PassView:
    sites = [(plain(path), f"x{n}" if n > 1 else "") for path, n in folded_paths(record.sites).items()]
    reasons: dict[tuple[str, str], list[str]] = {}
    for d in record.declined:
        reasons.setdefault((d.op, d.reason), []).append(d.module or d.node)
    declines = [
        (plain(reason), plain(op), plain(path), f"x{n}" if n > 1 else "")
        for (op, reason), paths in reasons.items()
        for path, n in folded_paths(paths).items()
    ]
    return PassView(
        record, facts(record), _cut(sites), _cut(declines), excerpt(record, graphs),
        " ".join(sorted(names_of(record.name))),
    )  # fmt: skip


def _cut(rows: Pairs) -> Pairs:
    return rows if len(rows) <= MOST_PATHS else [*rows[:MOST_PATHS], (f"and {len(rows) - MOST_PATHS} more",)]
