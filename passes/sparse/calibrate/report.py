"""The section ``attention.json`` of an artifact: what every head reads of a text, and what that costs it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fretsaw.ir import Graph, Node
from fretsaw.passes.kit.inspector import Look, Note, Text
from fretsaw.passes.kit.options import Plain
from fretsaw.passes.sparse.calibrate.layer import Layer, Reads
from fretsaw.passes.sparse.calibrate.measure import Loss, Measured, measure
from fretsaw.passes.sparse.describe import describe_heads

Array = np.ndarray
Said = Mapping[tuple[int, int], tuple[str, Mapping[str, Plain]]]  # (layer, head) -> method and its options
HeadRow = dict[str, object]
DENSE = Loss(1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)


@dataclass
class AttentionReport:
    """Measured heads of a sparse graph on one text.

    Args:
        first: Rows before this position are left out of masses and errors.
        said: Method and options of each head; what it does not name has the method that its attention names.
        note: Told which layer is done.
    """

    text: Text
    first: int
    said: Said = field(default_factory=dict)
    note: Note = lambda text: None
    layers: dict[int, tuple[Loss, ...]] = field(default_factory=dict)
    methods: dict[int, str] = field(default_factory=dict)
    masks: dict[int, Array] = field(default_factory=dict)

    def look(self, node: Node, value: Look) -> list[Array] | None:
        """Stand in for ``block_attention``: measure it and answer as dense attention would."""
        if node.op != "block_attention":
            return None
        layer = Layer.of(node, value)
        idx, cnt = value(node["idx"]), value(node["cnt"])
        assert isinstance(idx, np.ndarray) and isinstance(cnt, np.ndarray)
        way = Reads.of(idx, cnt, layer.heads, dict(node.attrs))
        found: Measured = measure(layer, [way], self.first)
        self.layers[layer.number] = found.losses[0]
        self.methods[layer.number] = str(node.attr("method"))
        self.masks[layer.number] = way.blocks
        self.note(f"attention of layer {layer.number}")
        return [found.dense]

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
    return AttentionReport(text, first, describe(graph), note)
