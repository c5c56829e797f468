"""Measuring a pass that leaves the first tokens of a text alone: on a text that is longer than that.

    text   0 ......... first ........................ n
           the same    |<-- rows whose predictions are compared -->|

Both graphs are run whole; their logits are wanted for some rows only, spread evenly behind ``first``, so that memory
does not grow with the vocabulary. Where the pass brings an inspector, a third run measures what it looks at; it answers
there as the graph before the pass would, so predictions have to be those, or the pass wired something wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fretsaw.ir import Graph, Node, ReferenceKvCache, TensorType, get_op
from fretsaw.ir.errors import PassError
from fretsaw.passes.api import Pass
from fretsaw.passes.evidence.compare import distance
from fretsaw.passes.evidence.decoding import check_decoding, decode_start, decodes
from fretsaw.passes.evidence.divergence import Divergence, diverge
from fretsaw.passes.evidence.feeds import Sequence, feed, vocabulary
from fretsaw.passes.evidence.memory import peak_bytes
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.evidence.quality import Streams, hold_limits, needed_logits
from fretsaw.passes.evidence.walk import shared_cuts
from fretsaw.passes.evidence.watched import Watch, run_watched
from fretsaw.passes.kit.cost import cost, sequence_dims
from fretsaw.passes.kit.inspector import Inspector, Look, Note

Array = np.ndarray
Numbers = dict[str, str | float | int]

MOST_ROWS = 512  # whose logits are compared
LOGIT_BYTES = 1 << 27  # of one graph's logits
LONG_FLOPS = 4 * 10**13  # of one run; what costs more cannot be waited for
SAME = 1e-6  # nats a token: f32 rounding makes 1e-9, a wrong head, scale or mask 1e-3 and more


@dataclass(frozen=True, eq=False)
class Run:
    """What a graph gave on the long text: logits of the compared rows, its cuts at these rows, and the caches that it
    filled."""

    logits: Array
    cuts: dict[str, Array]
    caches: tuple[ReferenceKvCache, ...]


def long_text(name: str, first: int, graph: Graph, options: EvidenceOptions, context: int) -> Sequence:
    """The text that a pass is measured on which changes nothing before ``first``.

    Args:
        context: Most tokens that the model reads.

    Raises:
        PassError: the text or the context ends before the pass begins.
    """
    wanted = max(options.long_tokens, 2 * first)
    known = len(options.calib) if options.calib else wanted
    tokens = min(wanted, known, context)
    if tokens <= first + 1:
        short = f"the calibration text has {known}" if known < context else f"the model reads at most {context}"
        raise PassError(
            f"{short} tokens, {name} begins at {first}: nothing would be measured",
            where=options.calib_source,
            when=f"pass {name}",
            hint="give a longer --calib, lower the option dense_until, or skip measuring with --no-check",
        )
    ids = np.asarray(options.calib[:tokens], np.int64)
    if not options.calib:
        ids = np.random.default_rng(options.seed).integers(0, vocabulary(graph), tokens)
    return Sequence("long", ids, options.calib_source or f"seed {options.seed}", options.seed)


def compared_rows(graph: Graph, first: int, tokens: int) -> Array:
    """Positions of rows whose predictions are compared, ascending; the last token predicts nothing that is known."""
    width = graph.outputs[0].tensor.shape[-1]
    most = min(MOST_ROWS, max(LOGIT_BYTES // (4 * width), 2)) if isinstance(width, int) else MOST_ROWS
    spread = np.linspace(first, tokens - 2, min(most, tokens - 1 - first))
    return np.unique(spread.astype(np.int64))


def check_long(
    p: Pass, before: Graph, after: Graph, options: EvidenceOptions, context: int, note: Note
) -> tuple[Numbers, Inspector | None]:
    """Cost of a pass on a long text, within the limits, and what its own inspector measured.

    Raises:
        PassError: nothing can be measured, a limit is broken, or predictions change where nothing is left out.
    """
    first = p.acts_from or 0
    text = long_text(p.name, first, before, options, context)
    start = decode_start(p.name, first, text) if decodes(after) else None
    tokens = int(text.ids.size)
    flops = cost(before, tokens).flops
    if flops > LONG_FLOPS:
        what = f"a run over {tokens} tokens takes {flops:.2g} operations, more than {LONG_FLOPS:.2g}"
        if options.max_kl is None and options.min_top1 is None:
            return {"status": f"unchecked: {what}"}, None
        hint = "without limits it compiles; then compare it with the dense artifact by `fretsaw eval --against`"
        raise PassError(f"{p.name} cannot be held to its limits: {what}", when=f"pass {p.name}", hint=hint)
    rows = compared_rows(before, first, tokens)
    names = shared_cuts(before, after, tokens)
    old = _run(before, text, rows, names, lambda n: note(f"dense, {n}"))
    new = _run(after, text, rows, names, lambda n: note(f"sparse, {n}"))
    near = diverge(old.logits, new.logits, text.ids, text.ids[rows + 1])
    about = f"{rows.size} of {tokens} tokens of {text.source}, from token {first} on"
    streams = Streams([old.logits], [new.logits], _blame(before, old, new))
    hold_limits(p.name, options, near, near, streams, about)
    where, share = streams.worst()[0] if streams.blame else ("", 0.0)
    numbers: Numbers = {
        **near.to_json(), "tokens_long": tokens, "sha256_long": text.sha256,
        "rows_compared": int(rows.size), "first_row": first,
        "worst_positions": ", ".join(str(int(rows[i])) for i in near.worst()),
        "worst_block": where, "worst_block_error": share, "memory_bound_bytes_long": _memory(after, tokens, rows, old),
    }  # fmt: skip
    inspector = None if p.inspect is None else p.inspect(after, text, first, note)
    idle = ""
    if inspector is not None:
        _inspected(p, after, text, rows, old, inspector, note)
        idle = inspector.idle()
    if start is not None:
        (mine,), (theirs,) = old.caches, new.caches
        suffix = "" if idle else "_decoding"
        decoded = check_decoding(p.name, (before, mine), (after, theirs), text, start, options, note, suffix)
        if idle:
            return _of_decoding(numbers, decoded), inspector
        numbers |= decoded
    elif idle:
        numbers["status"] = _nothing_done(p, options, idle)
    return numbers | ({} if inspector is None else inspector.numbers()), inspector


def _of_decoding(prompt: Numbers, decoded: Numbers) -> Numbers:
    """Numbers of a pass that changes decoding alone: those of the prompt say that it does nothing there."""
    kept = ("tokens_long", "sha256_long", "memory_bound_bytes_long")
    return {"kl_prompt": prompt["kl"], **{k: prompt[k] for k in kept}, **decoded}


def _nothing_done(p: Pass, options: EvidenceOptions, what: str) -> str:
    """What is said of a pass that did nothing on the whole text.

    Raises:
        PassError: limits were given, which would hold whatever the pass does to decoding or to longer texts.
    """
    if options.max_kl is None and options.min_top1 is None:
        return f"unchecked: {what}"
    hint = "decoding is not measured: leave --max-kl and --min-top1 out, then use `fretsaw eval --against`"
    raise PassError(f"{p.name} cannot be held to its limits: {what}", when=f"pass {p.name}", hint=hint)


def _inspected(p: Pass, after: Graph, text: Sequence, rows: Array, old: Run, inspector: Inspector, note: Note) -> None:
    """Run the graph after the pass with an inspector that answers as the graph before it would."""
    dense = _run(after, text, rows, [], note, inspector.look)
    found: Divergence = diverge(old.logits, dense.logits, text.ids, text.ids[rows + 1])
    if not found.mean <= SAME:
        what = f"with nothing left out predictions differ from the graph before it by {found.mean:.3g} nats a token"
        raise PassError(f"{p.name}: {what}", when=f"pass {p.name}", hint="it wired something wrongly: report this")


def _run(
    graph: Graph, text: Sequence, rows: Array, names: list[str], note: Note,
    instead: Callable[[Node, Look], list[Array] | None] | None = None,
) -> Run:  # fmt: skip
    inputs = feed(graph, text)
    picks = [v for v in graph.inputs if v.name == "rows" and isinstance(v.type, TensorType)]
    for value in picks:
        inputs[value.name] = rows.astype(np.int32)
    wanted, cuts = set(names), dict[str, Array]()
    layers = {n: n.loc.module for n in graph.nodes if _over_cache(n)}

    def keep(node: Node, look: Look, results: list[Array]) -> list[Array]:
        if node in layers and instead is None:
            note(layers[node])
        for value, array in zip(node.results, results, strict=True):
            if value.name in wanted:
                cuts[value.name] = array[rows] if array.shape[0] == text.ids.size else array
        return results

    watch: Watch = keep
    out = run_watched(graph, inputs, watch, instead=instead)
    flat = needed_logits(graph, out)
    caches = tuple(x for x in inputs.values() if isinstance(x, ReferenceKvCache))
    return Run(flat if picks else flat[rows], cuts, caches)


def _over_cache(node: Node) -> bool:
    op = get_op(node.op)
    return op.kind == "attention" and bool(op.reads)


def _memory(graph: Graph, tokens: int, rows: Array, run: Run) -> int:
    """Bytes of arrays held at once: the largest run, and logits and cuts of three."""
    env = sequence_dims(graph, tokens) | {"R": rows.size}
    held = run.logits.nbytes + sum(a.nbytes for a in run.cuts.values()) + sum(c.nbytes for c in run.caches)
    return peak_bytes(graph, env) + 3 * held


def run_rows(
    graph: Graph, text: Sequence, rows: Array, note: Note,
    instead: Callable[[Node, Look], list[Array] | None] | None = None,
) -> Array:  # fmt: skip
    """Logits of some rows of a text, [R, V]; ``instead`` as in :func:`run_watched`."""
    return _run(graph, text, rows, [], note, instead).logits


def _blame(graph: Graph, old: Run, new: Run) -> tuple[tuple[str, float], ...]:
    """By how much the distance of the two grows from cut to cut."""
    made = {v.name: n.loc.module for n in graph.nodes for v in n.results}
    out: list[tuple[str, float]] = []
    last = 0.0
    for name in old.cuts:
        apart = distance([old.cuts[name]], [new.cuts[name]]) if name in new.cuts else last
        out.append((f"%{name} ({made[name]})" if made.get(name) else f"%{name}", max(apart - last, 0.0)))
        last = apart
    return tuple(out)


def context_of(graph: Graph) -> int:
    """Most tokens of one sequence that the symbols of ``graph`` allow; of a packed graph that is no model's limit."""
    dims = sequence_dims(graph, 1 << 30)
    return min((n for name, n in dims.items() if n > 1 and name not in ("QB", "KB")), default=1)
