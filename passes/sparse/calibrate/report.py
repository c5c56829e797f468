"""The section ``attention.json`` of an artifact: what every head reads of a text, and what that costs it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fretsaw.ir import Graph, Node, Value
from fretsaw.passes.kit.inspector import Look, Note, Text
from fretsaw.passes.kit.options import Plain
from fretsaw.passes.sparse.calibrate.layer import Layer, Reads, Turn
from fretsaw.passes.sparse.calibrate.measure import Loss, Measured, measure
from fretsaw.passes.sparse.describe import describe_heads

Array = np.ndarray
Said = Mapping[tuple[int, int], tuple[str, Mapping[str, Plain]]]  # (layer, head) -> method and its options
HeadRow = dict[str, object]
DENSE = Loss(1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Lists:
    """Where a graph keeps the single keys of a layer.

    Args:
        ids, cnt: Positions, and how many of them count.
        freq: Of the rotary embedding, where they are read at one distance.
        distance, layout: As ``gather_attention`` has them.
    """

    ids: Value
    cnt: Value
    freq: Value | None
    distance: int
    layout: str


@dataclass
class AttentionReport:
    """Measured heads of a sparse graph on one text.

    Args:
        first: Rows before this position are left out of masses and errors.
        said: Method and options of each head; what it does not name has the method that its attention names.
        note: Told which layer is done.
        tokens: Lists of the single keys that layers read beside blocks.
    """

    text: Text
    first: int
    said: Said = field(default_factory=dict)
    note: Note = lambda text: None
    tokens: Mapping[int, Lists] = field(default_factory=dict)
    layers: dict[int, tuple[Loss, ...]] = field(default_factory=dict)
    methods: dict[int, str] = field(default_factory=dict)
    masks: dict[int, Array] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "attention"

    def look(self, node: Node, value: Look) -> list[Array] | None:
        """Stand in for attention over lists: measure it and answer as dense attention would.

        What reads single keys answers that it saw none, so that what both are merged to is the dense answer.
        """
        if node.op == "gather_attention":
            heads = np.asarray(value(node["q"])).shape[:2]
            return [np.zeros((*heads, node.int_attr("value_size")), np.float32), np.full(heads, -np.inf, np.float32)]
        if node.op != "block_attention":
            return None
        layer = Layer.of(node, value)
        way = read_lists(node, value, layer.heads, self.tokens.get(layer.number))
        found: Measured = measure(layer, [way], self.first)
        self.layers[layer.number] = found.losses[0]
        self.methods[layer.number] = str(node.attr("method"))
        self.masks[layer.number] = way.touched
        self.note(f"attention of layer {layer.number}")
        sums = [np.zeros(found.dense.shape[:2], np.float32)] if node.attr("lse") else []
        return [found.dense, *sums]

    @property
    def losses(self) -> list[Loss]:
        return [loss for layer in sorted(self.layers) for loss in self.layers[layer]]

    def idle(self) -> str:
        """Says so where every list is full on the whole text."""
        full = all(loss.density == 1 for loss in self.losses)
        return f"no head leaves anything out of a prompt of {self.text.ids.size} tokens" if full else ""

    def numbers(self) -> dict[str, str | float | int]:
        """For the ledger: means over the heads of sparse layers, and the head that is worst."""
        if not self.layers:
            return {}
        losses = self.losses
        error, layer, head = max((loss.error, n, h) for n, row in self.layers.items() for h, loss in enumerate(row))
        return {
            "density": float(np.mean([x.density for x in losses])),
            "retained_mass": float(np.mean([x.mass for x in losses])),
            "retained_mass_p1": min(x.mass_p1 for x in losses),
            "attention_error": float(np.mean([x.error for x in losses])),
            "worst_head": f"layer {layer}, head {head}",
            "worst_head_error": error,
            "heads_measured": len(losses),
        }

    def to_json(self) -> dict[str, object]:
        """Plain data. Densities count blocks of the whole text; masses and errors are over the rows from ``first``.
        Layers that stayed dense lose nothing, and have no masks."""
        heads: dict[int, int] = {layer: len(row) for layer, row in self.layers.items()}
        for layer, head in self.said:
            heads[layer] = max(heads.get(layer, 0), head + 1)
        return {
            "tokens": int(self.text.ids.size), "source": self.text.source, "first": self.first,
            "layers": [
                {"layer": n, "heads": [self._head(n, h, x) for h, x in enumerate(row)]}
                for n in sorted(heads) for row in [self.layers.get(n, (DENSE,) * heads[n])]
            ],
            "masks": [
                {"layer": n, "head": h, "rows": int(mask.shape[0]), "bits": pack_bits(mask)}
                for n in sorted(self.masks) for h, mask in enumerate(self.masks[n])
            ],
        }  # fmt: skip

    def _head(self, layer: int, head: int, loss: Loss) -> HeadRow:
        method, options = self.said.get((layer, head), (self.methods.get(layer, "dense"), {}))
        return {
            "head": head, "method": method, "options": dict(options), "density": _short(loss.density),
            "retained_mass": _short(loss.mass), "retained_mass_p1": _short(loss.mass_p1), "error": _short(loss.error),
            "bound": _short(loss.bound),
        }  # fmt: skip


def read_lists(node: Node, value: Look, heads: int, tokens: Lists | None) -> Reads:
    """What the heads of a ``block_attention`` read, with the single keys beside its blocks."""

    def array(of: Value) -> Array:
        found = value(of)
        assert isinstance(found, np.ndarray)
        return found

    beside = None if tokens is None else (array(tokens.ids), array(tokens.cnt))
    turn = None
    if tokens is not None and tokens.freq is not None:
        turn = Turn(tokens.distance, array(tokens.freq), tokens.layout)
    return Reads.of(array(node["idx"]), array(node["cnt"]), heads, dict(node.attrs), beside, turn)


def token_lists(graph: Graph) -> dict[int, Lists]:
    """Positions and their numbers, of every layer that reads single keys beside blocks."""
    return {
        n.int_attr("layer"): Lists(n["ids"], n["cnt"], n.get("inv_freq"), n.int_attr("distance"), n.str_attr("layout"))
        for n in graph.nodes if n.op == "gather_attention"
    }  # fmt: skip


def pack_bits(mask: Array) -> str:
    """A mask [n, n] as base64 of its rows' bits one after another, the first in the highest bit of a byte."""
    return base64.b64encode(np.packbits(mask.reshape(-1)).tobytes()).decode()


def _short(value: float) -> float:
    """Six digits: more would be rounding, and differ from machine to machine."""
    return float(f"{value:.6g}")


def describe(graph: Graph) -> Said:
    """Methods and options of the heads of a sparse graph, as its passes left them."""
    return {(h.layer, h.head): (h.method, h.options) for h in describe_heads(graph)}


def attention_report(graph: Graph, text: Text, first: int, note: Note) -> AttentionReport | None:
    """The inspector of a sparse graph; None where no attention reads lists."""
    if not any(node.op == "block_attention" for node in graph.nodes):
        return None
    return AttentionReport(text, first, describe(graph), note, token_lists(graph))
