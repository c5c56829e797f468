"""Measuring what a pass does to decoding: the last tokens of a text are read again, one a step.

    text    0 ................................ start ...... end
            read in one step, by each graph    |  a step for each token: its logits are compared

Each graph goes on from its own cache, which a run over the whole text filled and which is cut at ``start``; every step
is told the text's token and not the likeliest one (teacher forcing), so that both graphs are asked the same. Ops that
can leave something out bring a probe, which measures on the way how much that is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fretsaw.ir import Graph, Node, ReferenceKvCache, get_op
from fretsaw.ir.errors import PassError
from fretsaw.ir.traits import Probe
from fretsaw.ir.types import HandleType
from fretsaw.passes.evidence.divergence import diverge
from fretsaw.passes.evidence.feeds import Sequence, feed
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.evidence.quality import Streams, hold_limits, needed_logits
from fretsaw.passes.evidence.watched import run_watched
from fretsaw.passes.kit.inspector import Look, Note, Numbers

Array = np.ndarray
STEPS = 32  # tokens that are decoded


@dataclass
class Shares:
    """What nodes with a probe read of what is there, in steps that decode one token: a number a node and step."""

    of: dict[str, list[float]] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)

    def add(self, node: Node, value: Look) -> None:
        """Measure a node that has just run."""
        probe = active_probe(node)
        if probe is None:
            return
        attrs = {name: node.attr(name) for name in get_op(node.op).attrs}
        for name, share in probe.measure([value(v) for v in node.operands], attrs).items():
            self.of.setdefault(name, []).append(share)
        self.probes += [] if probe in self.probes else [probe]

    def idle(self) -> str:
        """Why the graph did nothing; empty where it left something out."""
        least = min(share for probe in self.probes for share in self.of[probe.share])
        return "" if least < 1 else self.probes[0].idle

    def numbers(self, suffix: str) -> Numbers:
        """Means over steps and nodes, and the least of what is told by its least."""
        out: Numbers = {f"{name}{suffix}": float(np.mean(shares)) for name, shares in self.of.items()}
        for probe in self.probes:
            out |= {f"{name}_least{suffix}": min(self.of[name]) for name in probe.least}
        return out


def active_probe(node: Node) -> Probe | None:
    """The probe of a node that leaves something out where a sequence decodes; None where it does not."""
    probe = get_op(node.op).probe
    return probe if probe is not None and node.attr(probe.when) else None


def decodes(graph: Graph) -> bool:
    """Some node leaves something out where a sequence has one token in the step."""
    return any(active_probe(node) is not None for node in graph.nodes)


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
        PassError: a limit is broken, or limits are given and the pass did nothing.
    """
    shares = Shares()
    old = decode(*before, text, start, note)
    new = decode(*after, text, start, note, shares)
    known = text.ids[start + 1 : start + 1 + STEPS]
    near = diverge(old, new, text.ids, known)
    about = f"{STEPS} tokens decoded one by one from token {start} of {text.source} on"
    hold_limits(name, options, near, near, Streams([old], [new], ()), about)
    numbers: Numbers = {
        **near.to_json(suffix), "tokens_decoded": STEPS, "first_decoded": start, **shares.numbers(suffix),
    }  # fmt: skip
    idle = shares.idle()
    if not idle:
        return numbers
    idle = f"{idle} of {start + STEPS} tokens when it decodes"
    if options.max_kl is None and options.min_top1 is None:
        return numbers | {"status": f"unchecked: {idle}"}
    hint = "measure on a longer --calib, or leave --max-kl and --min-top1 out"
    raise PassError(f"{name} cannot be held to its limits: {idle}", when=f"pass {name}", hint=hint)


def decode(
    graph: Graph, cache: ReferenceKvCache, text: Sequence, start: int, note: Note, shares: Shares | None = None
) -> Array:
    """Logits [STEPS, V] of :data:`STEPS` tokens of a text from ``start`` on, one a step.

    Args:
        cache: Filled with more of the text than ``start`` tokens; what is too much is forgotten.
        shares: Told what the nodes leave out.
    """
    cache.keep(start)
    logits: list[Array] = []

    def look(node: Node, value: Look, results: list[Array]) -> list[Array]:
        if shares is not None:
            shares.add(node, value)
        return results

    for at in range(start, start + STEPS):
        note(f"decoding, token {at}")
        cache.begin_step([1])
        out = run_watched(graph, step_inputs(graph, cache, text, at), look)
        logits.append(needed_logits(graph, out)[-1:])
    return np.concatenate(logits)


def step_inputs(graph: Graph, cache: ReferenceKvCache, text: Sequence, at: int) -> dict[str, object]:
    """Inputs of ``graph`` for a step that holds token ``at`` of the text alone."""
    given = feed(graph, Sequence("step", text.ids[at : at + 1], text.source, text.seed))
    for value in graph.inputs:
        if isinstance(value.type, HandleType):
            given[value.name] = cache
        elif value.name == "positions":
            given[value.name] = np.full_like(given[value.name], at)
    return given
