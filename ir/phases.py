"""Phases as specs: an op says from which to which it is legal (``Legal``), and a graph is held to that.

captured    what the importer writes: any op without a handle
canonical   norms, rotary embeddings and attention are single ops; no cos, sin, rsqrt remains outside them
fused       projections that read one value are merged
packed      token-major, [T, ...]; attention reads a KV cache handle (decoders) or stays within segments (encoders)
"""

from __future__ import annotations

from fretsaw.ir.errors import VerifyError
from fretsaw.ir.excerpt import excerpt, place
from fretsaw.ir.node import Graph
from fretsaw.ir.op import catalogue, get_op
from fretsaw.ir.traits import PHASES as PHASES  # where callers look for them


def legal_ops(phase: str) -> tuple[str, ...]:
    """The ops that may stand in a graph of ``phase``, in the order of the catalogue."""
    return tuple(name for name, op in catalogue().items() if phase in op.legal)


def selectors() -> tuple[str, ...]:
    """The ops that choose which keys attention reads, in the order of the catalogue."""
    return tuple(name for name, op in catalogue().items() if op.kind == "selector")


def check_phase(graph: Graph, *, when: str = "") -> None:
    """Check ``graph`` against the spec of ``graph.phase``.

    Raises:
        VerifyError: unknown phase, or an op that the phase bans, with the reason.
    """
    if graph.phase not in PHASES:
        raise VerifyError(f"there is no phase {graph.phase}", where=graph.name, when=when)
    for node in graph.nodes:
        legal = get_op(node.op).legal
        if graph.phase not in legal:
            raise VerifyError(
                f"{node.op} is not legal in phase {graph.phase}: {legal.why} (invariant 11)",
                where=place(node),
                when=", ".join(filter(None, [when, f"phase {graph.phase}"])),
                context=excerpt(graph, node),
                hint=legal.hint,
            )
