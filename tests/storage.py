"""Packed graphs with their weights or their KV cache in another storage format, by the passes that users have."""

from __future__ import annotations

from fretsaw.ir import Graph
from fretsaw.passes.api import Pass, apply
from fretsaw.passes.storage.store_kv import store_kv
from fretsaw.passes.storage.store_weights import store_weights


def stored(graph: Graph, *, weights: str = "", kv: str = "") -> Graph:
    """``graph`` with the formats that are given."""
    for p in stores(weights=weights, kv=kv):
        graph, _ = apply(p, graph)
    return graph


def stores(*, weights: str = "", kv: str = "") -> tuple[Pass, ...]:
    """The passes for the formats that are given."""
    asked = ((store_weights, weights), (store_kv, kv))
    return tuple(p.configured({"format": name}) for p, name in asked if name)
