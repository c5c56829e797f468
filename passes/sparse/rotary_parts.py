"""Queries and keys of a site before their rotary embedding."""

from __future__ import annotations

from dataclasses import dataclass

from fretsaw.ir import Node, Value
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class BeforeRope:
    """What the rotary embedding of a site was given.

    Args:
        q: Queries [T, H, E].
        k: Keys [T, K, E].
        freq: Its frequencies [E/2].
        layout: half or interleaved.
        scale: What it multiplies by.
    """

    q: Value
    k: Value
    freq: Value
    layout: str
    scale: float


def before_rope(site: Site) -> BeforeRope | str:
    """The operands of a rotary embedding of whole heads, or why there are none."""
    q, k = site.graph.producer(site.q), site.graph.producer(site.append["k"])
    if not _is_rope(q) or not _is_rope(k):
        return "it needs queries and keys before a rotary embedding, and they come from none"
    assert q is not None and k is not None
    if q["inv_freq"] != k["inv_freq"] or any(q.attr(name) != k.attr(name) for name in ("layout", "scale")):
        return "queries and keys have different rotary embeddings"
    if q["inv_freq"].tensor.shape[0] != site.head_size // 2:
        return "it knows rotary embeddings of the whole head, and a part of it turns here"
    return BeforeRope(q["x"], k["x"], q["inv_freq"], str(q.attr("layout")), q.float_attr("scale"))


def _is_rope(node: Node | None) -> bool:
    return node is not None and node.op == "rope"


def lacks_rope(site: Site, options: object) -> str:
    """Why a method that needs them cannot serve a site; empty where it can."""
    found = before_rope(site)
    return found if isinstance(found, str) else ""
