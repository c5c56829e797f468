"""Keep the keys and values of the cache in another storage format.

    graph @g(%kv: handle<kv_cache>)      ==>      graph @g(%kv: handle<kv_cache, int8>)

Why:    the cache grows with every token of every sequence; in long contexts it is what fills memory and what decoding
        reads.
Needs:  a KV cache: a packed decoder.
Keeps:  budget: a key or value is rounded when it is appended.
Stops:  one walk over the nodes.
Source: common practice; KIVI, arXiv:2402.02750, for what low bits do to keys and to values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fretsaw.ir import Graph, HandleType, Node, Value
from fretsaw.ir.formats import FORMATS
from fretsaw.ir.ops.cache import is_cache
from fretsaw.passes.api import Decline, Outcome, Stored, graph_pass
from fretsaw.passes.storage.options import check_format


@dataclass(frozen=True)
class StoreKv:
    """Options of the pass.

    Args:
        format: Storage format of keys and values; arithmetic is f32 in each.
    """

    format: str = "int8"

    def __post_init__(self) -> None:
        check_format(self.format)


@graph_pass(phase="packed", keeps="budget", options=StoreKv)
def store_kv(g: Graph, options: StoreKv) -> Outcome:
    """The cache in the format of the options. A site is a node that appends to it."""
    appends = tuple(n for n in g.nodes if n.op == "kv_append")
    caches = {v: _format(v) for v in g.inputs if is_cache(v.type)}
    moved = {v: _as(v, options.format) for v, now in caches.items() if now != options.format}
    if not moved:
        reason = f"the cache is kept as {options.format} already"
        return Outcome(g, declines=tuple(Decline(reason, at=n, already=True) for n in appends))
    nodes = tuple(
        replace(n, operands=tuple(moved.get(v, v) for v in n.operands)) if any(v in moved for v in n.operands) else n
        for n in g.nodes
    )
    graph = replace(g, inputs=tuple(moved.get(v, v) for v in g.inputs), nodes=nodes)
    stored = tuple(
        Stored(n.loc.module or v.name, caches[v], options.format, _bytes(n, caches[v]), _bytes(n, options.format))
        for n in appends for v in n.operands[:1]
    )  # fmt: skip
    return Outcome(graph, appends, stored=stored)


def _format(cache: Value) -> str:
    assert isinstance(cache.type, HandleType)
    return cache.type.format


def _as(cache: Value, name: str) -> Value:
    assert isinstance(cache.type, HandleType)
    return replace(cache, type=replace(cache.type, format=name))


def _bytes(append: Node, name: str) -> int:
    """Bytes that one token has in the layer of ``append``."""
    shapes = [tuple(d for d in append[slot].tensor.shape[1:] if isinstance(d, int)) for slot in ("k", "v")]
    return sum(FORMATS[name].nbytes(shape) for shape in shapes)
