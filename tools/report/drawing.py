"""The nodes of one block as SVG: a box for each op, arrows for what it reads, a pill for what comes from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fretsaw.ir import Graph, Node, Value, get_op
from fretsaw.ir.printer import node_text
from fretsaw.ir.views import data_flow
from fretsaw.tools.report.graph_tables import flops, read_consts, run_tokens, weight_bytes
from fretsaw.tools.report.layers import Block, blocks_of
from fretsaw.tools.report.layout import Layout, Point, layered
from fretsaw.tools.report.svg import element
from fretsaw.tools.report.words import clip, count, plain, size

BOX, PILL, HEIGHT, STEP, MARGIN = 176.0, 176.0, 40.0, 70.0, 8.0  # pixels
LETTERS = 25  # of a type in a box
MOST_NODES = 400  # of a block that is drawn; a larger one is listed as text


def kind(op: str) -> str:
    """The class of a box: product, attention, norm, expert, shape or arithmetic."""
    found = get_op(op).kind
    return {"layout": "shape", "index": "shape", "source": "shape", "selector": "arithmetic"}.get(found, found)


@dataclass(frozen=True)
class Artist:
    """Draws blocks of one graph; what it needs of the whole graph is made once."""

    graph: Graph
    made_in: Mapping[Value, str]
    arrows: Mapping[int, Sequence[tuple[int, int]]]  # by the position of the node that they enter

    @staticmethod
    def of(graph: Graph) -> Artist:
        made_in = {v: block.label for block in blocks_of(graph) for node in block.nodes for v in node.results}
        view = data_flow(graph)
        return Artist(graph, made_in, {b: [(a, b) for a in view.predecessors(b)] for b in view})

    def draw(self, block: Block) -> Markup:
        """One ``<svg>``; its boxes carry what the page shows about a node in ``data-`` attributes."""
        inside = {v for node in block.nodes for v in node.results}
        reads = [v for node in block.nodes for v in node.operands]
        foreign = list(dict.fromkeys(v for v in reads if v in self.made_in and v not in inside))
        layout = layered([PILL] * len(foreign) + [BOX] * len(block.nodes), self._edges(block, foreign))
        shapes = [_arrow(route) for route in layout.routes]
        shapes += [_pill(v, self.made_in[v], place) for v, place in zip(foreign, layout.places, strict=False)]
        work = flops(self.graph, block.nodes)
        places = layout.places[len(foreign) :]
        shapes += [self._box(n, w, place) for n, w, place in zip(block.nodes, work, places, strict=True)]
        return _frame(layout, f"{len(block.nodes)} nodes of {block.label}", shapes)

    def _edges(self, block: Block, foreign: Sequence[Value]) -> list[tuple[int, int]]:
        """Pills first, then nodes in program order: every edge goes to a higher number."""
        at = {self.graph.position(node): i for i, node in enumerate(block.nodes, len(foreign))}
        pill = {v: i for i, v in enumerate(foreign)}
        edges = {(at[a], at[b]) for node in at for a, b in self.arrows.get(node, ()) if a in at}
        edges |= {(pill[v], i) for i, n in enumerate(block.nodes, len(foreign)) for v in n.operands if v in pill}
        return sorted(edges)

    def _box(self, node: Node, work: int, place: Point) -> Markup:
        consts = read_consts(self.graph, [node])
        held = size(weight_bytes(self.graph, consts)) if consts else ""
        x, y = place[0] - BOX / 2, place[1] * STEP
        text = node_text(node).partition("  // ")[0]
        types = ", ".join(str(v.type) for v in node.results) or "changes the cache"
        data = {
            "data-op": plain(node.op), "data-text": plain(text), "data-module": plain(node.loc.module),
            "data-source": plain(node.loc.source), "data-rules": plain(" ".join(node.loc.rules)),
            "data-flops": f"{count(work)} at {run_tokens(self.graph)} tokens" if work else "",
            "data-weights": "; ".join(f"{plain(str(v))}, {size(self.graph.consts[v].nbytes)}" for v in consts),
        }  # fmt: skip
        return element(
            "g",
            {"class": f"op {kind(node.op)}", "tabindex": "0", "role": "button",
             "transform": f"translate({x:.1f} {y:.1f})", **data},
            element("title", {}, plain(f"{text}\n{node.loc.module}").replace("\\n", "\n")),
            element("rect", {"width": BOX, "height": HEIGHT, "rx": 6.0}),
            element("text", {"class": "name", "x": 9.0, "y": 16.0}, clip(plain(node.op), 17)),
            element("text", {"class": "held", "x": BOX - 9, "y": 16.0}, held),
            element("text", {"class": "type", "x": 9.0, "y": 32.0}, clip(plain(types), LETTERS)),
        )  # fmt: skip


def _pill(value: Value, origin: str, place: Point) -> Markup:
    x, y = place[0] - PILL / 2, place[1] * STEP
    return element(
        "g",
        {"class": "pill", "transform": f"translate({x:.1f} {y:.1f})"},
        element("title", {}, plain(f"{value} from {origin}")),
        element("rect", {"width": PILL, "height": HEIGHT - 8, "rx": (HEIGHT - 8) / 2, "y": 4.0}),
        element("text", {"class": "type", "x": PILL / 2, "y": HEIGHT / 2 + 4}, clip(plain(f"from {origin}"), LETTERS)),
    )


def _arrow(route: Sequence[Point]) -> Markup:
    """From the lower edge of a box to the upper edge of another: curves between ranks, straight past the boxes."""
    half = HEIGHT / 2
    middles = [(x, y * STEP + half) for x, y in route]
    path = [f"M{middles[0][0]:.1f} {middles[0][1] + half:.1f}"]
    for (x0, y0), (x1, y1) in zip(middles, middles[1:], strict=False):
        bend = (y0 + y1) / 2
        path.append(f"V{y0 + half:.1f}C{x0:.1f} {bend:.1f} {x1:.1f} {bend:.1f} {x1:.1f} {y1 - half:.1f}")
    x, y = middles[-1][0], middles[-1][1] - half
    path.append(f"M{x - 4:.1f} {y - 6:.1f}L{x:.1f} {y - 1:.1f}L{x + 4:.1f} {y - 6:.1f}")
    return element("path", {"class": "arrow", "d": "".join(path)})


def _frame(layout: Layout, label: str, shapes: Sequence[Markup]) -> Markup:
    width = layout.width + 2 * MARGIN
    height = (layout.ranks - 1) * STEP + HEIGHT + 2 * MARGIN
    attrs: dict[str, str | float] = {
        "viewBox": f"{-MARGIN:.0f} {-MARGIN:.0f} {width:.0f} {height:.0f}", "width": width, "height": height,
        "role": "group", "aria-label": plain(label),
    }  # fmt: skip
    return element("svg", attrs, *shapes)
