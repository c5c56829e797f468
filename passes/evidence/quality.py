"""Passes that approximate: what they cost in predictions, where, and limits that stop the compile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fretsaw.ir import Graph, Value, evaluate_graph
from fretsaw.ir.errors import PassError
from fretsaw.passes.evidence.compare import distance
from fretsaw.passes.evidence.divergence import Divergence
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.evidence.trace import Trace
from fretsaw.passes.evidence.walk import Pieces

Array = np.ndarray
LOGITS = "logits"
SHOWN = 3  # layers and positions named in an error


@dataclass(frozen=True, eq=False)
class Streams:
    """Outputs of a run of each graph of its own, and what each block adds to the distance between the two."""

    before: Sequence[Array]
    after: Sequence[Array]
    blame: tuple[tuple[str, float], ...]

    def worst(self) -> list[tuple[str, float]]:
        return sorted(self.blame, key=lambda item: -item[1])[:SHOWN]


def whole_streams(before: Graph, after: Graph, names: list[str], trace: Trace) -> Streams:
    """Run both graphs whole. A block's share is by how much the distance of the two grows from its cut to the next."""
    ends = [*names, *(v.name for v in before.outputs)]
    a, b = (_values(graph, ends, trace) for graph in (before, after))
    made = {v.name: n.loc.module for n in before.nodes for v in n.results}
    blame: list[tuple[str, float]] = []
    last = 0.0
    for name in ends:
        apart = distance([a[name]], [b[name]])
        blame.append((f"%{name} ({made[name]})" if made.get(name) else f"%{name}", max(apart - last, 0.0)))
        last = apart
    outputs = [[values[v.name] for v in graph.outputs] for values, graph in ((a, before), (b, after))]
    return Streams(outputs[0], outputs[1], tuple(blame))


def _values(graph: Graph, names: list[str], trace: Trace) -> dict[str, Array]:
    wanted = {v for v in graph.values() if v.name in set(names)}
    return {v.name: a for v, a in evaluate_graph(graph, trace.inputs(graph), list(wanted)).items()}


def block_streams(pieces: Pieces, trace: Trace) -> Streams:
    """Run the graph after the pass from the first changed block on, and each changed block on real activations too: a
    block's share is the distance that it makes alone. Leaves ``trace.real`` as the graph after the pass has it."""
    blame: list[tuple[str, float]] = []
    carried: Array | None = None
    moved: dict[str, Array] = {}
    for (old, new), changed in zip(pieces.pairs, pieces.changed, strict=True):
        given = None if old.cut is None else trace.real[old.cut.name]
        last = new is pieces.pairs[-1][1]
        if not changed and carried is None and not last:
            continue
        want = trace.outputs(pieces.before, old, given) if last or changed else None
        alone = trace.fresh_outputs(pieces.after, new, given) if changed else want
        own = alone if carried is None and alone is not None else trace.fresh_outputs(pieces.after, new, carried)
        if changed and want is not None and alone is not None:
            blame.append((new.name, distance(want, alone)))
        if last:
            assert want is not None
            trace.real = {b.cut.name: trace.real[b.cut.name] for b, _ in pieces.pairs if b.cut} | moved
            return Streams(want, own, tuple(blame))
        carried = own[0]
        moved[new.graph.outputs[0].name] = carried
    raise AssertionError("a graph has at least one block")


def logits_of(graph: Graph, outputs: Sequence[Array]) -> Array | None:
    """The output called ``logits`` as [n, V], or None."""
    for value, array in zip(graph.outputs, outputs, strict=True):
        if value.name == LOGITS:
            return array.reshape(-1, array.shape[-1])
    return None


def needed_logits(graph: Graph, outputs: Mapping[Value, Array]) -> Array:
    """As :func:`logits_of`, of a graph whose predictions are compared.

    Raises:
        PassError: it has no such output.
    """
    found = logits_of(graph, [outputs[v] for v in graph.outputs])
    if found is None:
        raise PassError("predictions are compared, and the graph has no output called logits", where=graph.name)
    return found


def hold_limits(
    name: str, options: EvidenceOptions, near: Divergence, far: Divergence, streams: Streams, text: str
) -> None:
    """Stop the compile when a pass costs more than the limits allow.

    Raises:
        PassError: names the pass, the value, the limit, and the worst layers and positions.
    """
    for found, against in ((near, "the graph before it"), (far, "the first graph")):
        limit = options.max_kl
        if not np.isfinite(found.mean) or (limit is not None and found.mean > limit):
            allowed = f", limit {limit:g}" if limit is not None else ", which no model can mean"
            raise _broken(name, f"mean KL divergence from {against} is {found.mean:.4g} nats a token{allowed}", found,
                          streams, text)  # fmt: skip
        share = options.min_top1
        if share is not None and found.top1 < share:
            what = f"the most likely token agrees with {against} at {found.top1:.4g} of the tokens, limit {share:g}"
            raise _broken(name, what, found, streams, text)


def _broken(name: str, what: str, found: Divergence, streams: Streams, text: str) -> PassError:
    layers = "\n".join(f"layer     {where}: adds {share:.3g} to the relative error" for where, share in streams.worst())
    tokens = "\n".join(f"position  {i}: KL {found.kl[i]:.4g}" for i in found.worst(SHOWN))
    return PassError(
        f"{name}: {what}",
        when=f"pass {name}",
        context="\n".join(filter(None, [layers, tokens])),
        hint=f"measured on {text}; weaken the pass, leave out the layers above, or raise the limit",
    )
