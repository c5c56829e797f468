"""Measuring what a pass does to decoding: the last tokens of a text are read again, one a step.

    text    0 ................................ start ...... end
            read in one step, by each graph    |  a step for each token: its logits are compared

Each graph goes on from its own cache, which a run over the whole text filled and which is cut at ``start``; every step
is told the text's token and not the likeliest one (teacher forcing), so that both graphs are asked the same. Attention
over lists that hold for decoding is looked at on the way: how much of its keys it reads, and what mass they have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fretsaw.ir import Graph, Node, ReferenceKvCache
from fretsaw.ir.errors import PassError
from fretsaw.ir.kv import BLOCK, QueryBlock
from fretsaw.ir.ops.block_attention import head_groups, listed_keys, visible
from fretsaw.ir.types import HandleType
from fretsaw.passes.evidence.divergence import diverge
from fretsaw.passes.evidence.feeds import Sequence, feed
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.evidence.quality import Streams, hold_limits, needed_logits
from fretsaw.passes.evidence.watched import run_watched
from fretsaw.passes.kit.inspector import Look, Note, Numbers

Array = np.ndarray
STEPS = 32  # tokens that are decoded


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a graph gave in single steps.

    Args:
        logits: [steps, V].
        read: Share of the key blocks that heads with lists read, one number a step and layer.
        mass: Softmax mass of the queries of these heads in what they read, a mean over the heads.
    """

    logits: Array
    read: list[float]
    mass: list[float]


def decodes(graph: Graph) -> bool:
    """Some attention reads lists where a sequence has one token in the step."""
    return any(n.op == "block_attention" and n.attr("decode") for n in graph.nodes)


def decode_start(name: str, first: int, text: Sequence) -> int:
    """Position from which tokens are decoded.

    Raises:
        PassError: the text ends before the pass begins to leave something out.
    """
    start = int(text.ids.size) - 1 - STEPS
    if start < first:
        need = first + STEPS + 1
        raise PassError(
            f"{name} changes decoding from token {first} on; of {text.ids.size} tokens nothing could be measured",
            where=text.source,
            when=f"pass {name}",
            hint=f"give a --calib of at least {need} tokens, or skip measuring with --no-check",
        )
    return start


def check_decoding(
    name: str, before: tuple[Graph, ReferenceKvCache], after: tuple[Graph, ReferenceKvCache], text: Sequence,
    start: int, options: EvidenceOptions, note: Note, suffix: str = "",
) -> Numbers:  # fmt: skip
    """Cost of a pass for tokens that are decoded, within the limits.

    Args:
        before, after: The graphs, and their caches filled with the text, which are used up.
        start: See :func:`decode_start`.
        suffix: Of the names of numbers that prompts have, too.

    Raises:
        PassError: a limit is broken, or limits are given and nothing was left out.
    """
    old, new = (decode(g, cache, text, start, note) for g, cache in (before, after))
    known = text.ids[start + 1 : start + 1 + STEPS]
    near = diverge(old.logits, new.logits, text.ids, known)
    about = f"{STEPS} tokens decoded one by one from token {start} of {text.source} on"
    hold_limits(name, options, near, near, Streams([old.logits], [new.logits], ()), about)
    numbers: Numbers = {
        **near.to_json(suffix), "tokens_decoded": STEPS, "first_decoded": start,
        f"density{suffix}": float(np.mean(new.read)), f"retained_mass{suffix}": float(np.mean(new.mass)),
        f"retained_mass_least{suffix}": min(new.mass),
    }  # fmt: skip
    if min(new.read) < 1:
        return numbers
    idle = f"no head leaves anything out of {start + STEPS} tokens when it decodes"
    if options.max_kl is None and options.min_top1 is None:
        return numbers | {"status": f"unchecked: {idle}"}
    hint = "measure on a longer --calib, or leave --max-kl and --min-top1 out"
    raise PassError(f"{name} cannot be held to its limits: {idle}", when=f"pass {name}", hint=hint)


def decode(graph: Graph, cache: ReferenceKvCache, text: Sequence, start: int, note: Note) -> Decoded:
    """Run ``graph`` on :data:`STEPS` tokens of a text from ``start`` on, one a step.

    Args:
        cache: Filled with more of the text than ``start`` tokens; what is too much is forgotten.
    """
    cache.keep(start)
    logits: list[Array] = []
    read: list[float] = []
    mass: list[float] = []

    def look(node: Node, value: Look, results: list[Array]) -> list[Array]:
        if node.op == "block_attention" and node.attr("decode"):
            density, kept = _reads(node, value)
            read.append(density)
            mass.append(kept)
        return results

    for at in range(start, start + STEPS):
        note(f"decoding, token {at}")
        cache.begin_step([1])
        out = run_watched(graph, step_inputs(graph, cache, text, at), look)
        logits.append(needed_logits(graph, out)[-1:])
    return Decoded(np.concatenate(logits), read, mass)


def step_inputs(graph: Graph, cache: ReferenceKvCache, text: Sequence, at: int) -> dict[str, object]:
    """Inputs of ``graph`` for a step that holds token ``at`` of the text alone."""
    given = feed(graph, Sequence("step", text.ids[at : at + 1], text.source, text.seed))
    for value in graph.inputs:
        if isinstance(value.type, HandleType):
            given[value.name] = cache
        elif value.name == "positions":
            given[value.name] = np.full_like(given[value.name], at)
    return given


def _reads(node: Node, value: Look) -> tuple[float, float]:
    """Of the one query of a step: the share of key blocks that its heads read, and of their softmax mass."""
    kv, q, idx, cnt = (value(node[slot]) for slot in ("kv", "q", "idx", "cnt"))
    assert isinstance(kv, ReferenceKvCache)
    assert isinstance(q, np.ndarray) and isinstance(idx, np.ndarray) and isinstance(cnt, np.ndarray)
    (block,) = kv.query_blocks()
    keys, _ = kv.read(node.int_attr("layer"), block.sequence)
    heads, scale = q.shape[1], node.float_attr("scale")
    shares: list[float] = []
    mass: list[float] = []
    for h, g in enumerate(head_groups(heads, idx.shape[1])):
        seen = _seen(node, block, idx[block.row, g, : cnt[block.row, g]], h)
        logits = keys[:, h * keys.shape[1] // heads].astype(np.float64) @ q[0, h] * scale
        weights = np.exp(logits - logits.max())
        shares.append(np.unique(seen // BLOCK).size / (block.block + 1))
        mass.append(float(weights[seen].sum() / weights.sum()))
    return float(np.mean(shares)), float(np.mean(mass))


def _seen(node: Node, block: QueryBlock, listed: Array, head: int) -> Array:
    """Positions of the keys that a head reads."""
    keys = listed_keys(block, listed)
    spans = []
    for name in ("sink", "window"):
        given = node.attr(name) or ()
        assert isinstance(given, tuple)
        spans.append(int(given[head]) if given else 0)  # type: ignore[arg-type]
    seen: Array = keys[visible(block, keys, spans[0], spans[1])[0]]
    return seen
