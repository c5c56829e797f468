"""Phases as specs: from a phase on, only these ops are legal.

captured    what the importer writes: any op without effects
canonical   norms, rotary embeddings and attention are single ops; no cos, sin, rsqrt remains outside them
fused       projections that read one value are merged
packed      token-major, [T, ...]; attention reads a KV cache handle (decoders) or stays within segments (encoders)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fretsaw.ir.errors import VerifyError
from fretsaw.ir.excerpt import excerpt, place
from fretsaw.ir.node import Graph
from fretsaw.ir.op import catalogue

PHASES = ("captured", "canonical", "fused", "packed")


@dataclass(frozen=True)
class PhaseSpec:
    """Ops that must not occur in a phase, each with the reason a reader should see."""

    name: str
    banned: Mapping[str, str]


_CACHE = dict.fromkeys(
    ("kv_append", "cached_attention", "keep_window", "block_attention", "gather_attention", "merge_attention"),
    "the cache exists only after packing",
)
SELECTORS = (
    "causal_blocks", "forced_blocks", "span_blocks", "strided_blocks", "union_blocks", "pick_heads", "compact_blocks",
    "pool_queries", "pool_keys", "block_scores", "band_scores", "bound_scores", "antidiagonal_scores", "line_scores",
    "compressed_scores", "softmax_blocks", "pool_heads", "line_blocks", "line_tokens", "block_tokens",
    "line_block_scores", "flex_blocks",
    "select_top_k", "select_share", "select_top_p", "select_above",
    "elastic_blocks", "prompt_blocks", "flex_switch", "halving_blocks", "gate_queries", "gate_keys", "earlier_blocks",
    "representative_keys", "chunk_keys", "hash_scores", "sampled_blocks",
)  # fmt: skip
_CACHE |= dict.fromkeys(SELECTORS, "blocks of a step exist only after packing")
_CACHE |= dict.fromkeys(("segment_attention", "segment_pool"), "segments exist only after packing")
_PADDED = {"attention": "a packed program reads the KV cache", "pool": "a packed program pools segments"}
_RAISED = dict.fromkeys(("cos", "sin"), "left over from a rotary embedding that no rule recognised")
_RAISED |= dict.fromkeys(("rsqrt",), "left over from a normalization that no rule recognised")

# What to do about an op that should be gone: ask the pass that raises what it is a part of.
HINTS: Mapping[str, str] = {
    "cos": "`fretsaw explain CHECKPOINT raise_rope` shows the nearest miss",
    "sin": "`fretsaw explain CHECKPOINT raise_rope` shows the nearest miss",
    "rsqrt": "`fretsaw explain CHECKPOINT raise_rms_norm` shows the nearest miss",
}

SPECS: Mapping[str, PhaseSpec] = {
    "captured": PhaseSpec("captured", _CACHE),
    "canonical": PhaseSpec("canonical", {**_CACHE, **_RAISED}),
    "fused": PhaseSpec("fused", {**_CACHE, **_RAISED}),
    "packed": PhaseSpec("packed", {**_RAISED, **_PADDED}),
}


def legal_ops(phase: str) -> tuple[str, ...]:
    """The ops that may stand in a graph of ``phase``, in the order of the catalogue."""
    return tuple(op for op in catalogue() if op not in SPECS[phase].banned)


def check_phase(graph: Graph, *, when: str = "") -> None:
    """Check ``graph`` against the spec of ``graph.phase``.

    Raises:
        VerifyError: unknown phase, or an op that the phase bans, with the reason.
    """
    spec = SPECS.get(graph.phase)
    if spec is None:
        raise VerifyError(f"there is no phase {graph.phase}", where=graph.name, when=when)
    for node in graph.nodes:
        if node.op in spec.banned:
            raise VerifyError(
                f"{node.op} is not legal in phase {graph.phase}: {spec.banned[node.op]} (invariant 11)",
                where=place(node),
                when=", ".join(filter(None, [when, f"phase {graph.phase}"])),
                context=excerpt(graph, node),
                hint=HINTS.get(node.op, ""),
            )
