"""Run the graph before and after every pass, and hold the pass to what it promises to keep.

``bits`` compares exactly in the shipped dtype. ``algebra`` runs both graphs in float64 too where they differ, where
rounding is too small to hide a mistake: the difference must stay under eps64 x width x nodes. ``budget`` measures what
the approximation costs in predictions and holds the limits of the options. See docs/evidence.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fretsaw.ir import Const, DeclaredData, DigestData, Graph, OpData, TensorType
from fretsaw.ir.errors import PassError, UsageError
from fretsaw.ir.types import HandleType
from fretsaw.passes.api import Pass
from fretsaw.passes.evidence.compare import CHUNK, algebra_bound, difference, distance, rounding_bound
from fretsaw.passes.evidence.divergence import ROWS, diverge
from fretsaw.passes.evidence.feeds import sequences
from fretsaw.passes.evidence.long import check_long, context_of
from fretsaw.passes.evidence.memory import peak_bytes
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.evidence.quality import Streams, block_streams, hold_limits, logits_of, whole_streams
from fretsaw.passes.evidence.trace import Trace
from fretsaw.passes.evidence.walk import Pieces, shared_cuts, walk
from fretsaw.passes.evidence.wide import as_f64 as as_f64  # where callers look for it
from fretsaw.passes.kit.cost import cost, sequence_dims
from fretsaw.passes.kit.inspector import Inspector, Note
from fretsaw.passes.kit.ledger import Evidence

Numbers = dict[str, str | float | int]
Array = np.ndarray

WHOLE_FLOPS = 10**12  # of a run over all tokens; what costs more is checked block by block, on fewer tokens
FEWEST = 16  # tokens, however large the model
OUTPUT_BYTES = 1 << 27  # of one graph's outputs over all tokens; larger vocabularies get fewer tokens
MOST_CUTS = 64  # kept of both graphs while a pass of class budget is measured whole
UNCHECKED: Evidence = {"status": "unchecked: --no-check"}


@dataclass(frozen=True)
class Plan:
    """How the graphs of one compile are compared, decided on the first of them."""

    mode: str
    calibration: Trace
    seeded: Trace
    base: list[Array]  # outputs of the first graph on the calibration text

    @property
    def tokens(self) -> int:
        return int(self.calibration.sequence.ids.size)


class Checker:
    """Checks the passes of one compile. Remembers what the last graph gave, which the next pass starts from."""

    def __init__(self, options: EvidenceOptions | None = None) -> None:
        self.options = options or EvidenceOptions()
        self.reports: dict[str, Inspector] = {}  # by name, of the last pass that brought one
        self.note: Note = lambda text: None  # told what a long check is at
        self._plan: Plan | None = None
        self._largest = 0
        self._context = 0

    @staticmethod
    def of(check: bool | EvidenceOptions) -> Checker | None:
        """The checker that a compile asks for; None when it asks for none."""
        if isinstance(check, EvidenceOptions):
            return Checker(check) if check.check else None
        return Checker() if check else None

    def check(self, p: Pass, before: Graph, after: Graph) -> Evidence:
        """Numbers that show what the pass did.

        Raises:
            PassError: the outputs differ by more than the class or a limit allows.
        """
        if after is before:
            return {"status": "passed", "changed": 0}
        reason = cannot_run(before) or cannot_run(after)
        if reason:
            return {"status": f"unchecked: {reason}"}
        if self._plan is None:
            self._plan = make_plan(before, self.options)
            self._context = context_of(before)
        plan = self._plan
        names = [n for n in shared_cuts(before, after, plan.tokens) if n in plan.seeded.real]
        small = Pieces.of(before, after, names)
        pieces = small if plan.mode == "blocks" else Pieces.of(before, after, [])
        moved: frozenset[str] = frozenset()
        if p.keeps == "budget":
            found = self._budget(p, pieces, small, names, plan)
            found = found if p.acts_from is None else self._long(p, before, after, found)
        else:
            found, moved = self._equal(p, pieces, small, plan)
        kept = names if p.keeps == "budget" and plan.mode == "whole" else []
        bound = memory_bound(pieces, plan, kept)
        self._largest = max(self._largest, bound)
        plan.calibration.forget([new for _, new in pieces.pairs], moved)
        plan.seeded.forget([new for _, new in small.pairs], moved)
        about: Numbers = {"mode": plan.mode, "blocks": len(pieces.pairs), "blocks_skipped": pieces.skipped}
        return {"status": "passed", "changed": 1, **found, **about, "memory_bound_bytes": bound}

    def summary(self) -> Evidence:
        """What holds for all passes, for the head of ``evidence.json``."""
        limits = {"max_kl": self.options.max_kl, "min_top1": self.options.min_top1}
        out: Numbers = {k: v for k, v in limits.items() if v is not None}
        if self._plan is None:
            return {"status": "passed", **out}
        out |= {"mode": self._plan.mode}
        for trace in (self._plan.calibration, self._plan.seeded):
            out |= {f"{trace.sequence.name}_{k}": v for k, v in trace.sequence.to_json().items()}
        return {"status": "passed", **out, "memory_bound_bytes": self._largest}

    def _equal(self, p: Pass, pieces: Pieces, small: Pieces, plan: Plan) -> tuple[Numbers, frozenset[str]]:
        """Outputs equal, or equal but for rounding; and the cuts whose meaning changed."""
        exact = p.keeps == "bits"
        tolerance = _exactly if exact else _rounded
        shipped, shown = walk(pieces, plan.calibration, tolerance), plan.calibration
        moved = shipped.moved
        if shipped.error == 0 and not plan.seeded.sequence.begins(plan.calibration.sequence):
            shipped, shown = walk(small, plan.seeded, tolerance), plan.seeded
            moved |= shipped.moved
        if shipped.error == 0:
            return {"max_error": 0.0}, moved
        if exact:
            what = f"promises identical outputs; they differ by {shipped.error:.3g} of the largest"
            whole = plan.mode == "whole" and shown is plan.calibration
            raise _broken(p, what, _first(pieces, shown, plan.tokens) if whole else shipped.strayed)

        def rounding(graph: Graph) -> float:
            return algebra_bound(graph, rounds_constants=p.rounds_constants)

        found = walk(small, plan.seeded, rounding, wide=True)
        bound = max(rounding(old.graph) for old, _ in small.pairs)
        if found.failed:
            what = f"promises that only rounding moves; in float64 outputs differ by {found.error:.3g}"
            raise _broken(p, f"{what}, bound {bound:.3g}", found.strayed)
        about: Numbers = {"blocks_f64": len(small.pairs), "blocks_f64_skipped": small.skipped}
        return {"max_error": shipped.error, "max_error_f64": found.error, "bound_f64": bound, **about}, (
            moved | found.moved
        )

    def _budget(self, p: Pass, pieces: Pieces, small: Pieces, names: list[str], plan: Plan) -> Numbers:
        """The cost of an approximation, within the limits."""
        trace, options = plan.calibration, self.options
        if plan.mode == "blocks":
            streams = block_streams(pieces, trace)
        else:
            step = -(-max(len(names), 1) // MOST_CUTS)
            streams = whole_streams(pieces.before, pieces.after, names[::step], trace)
            trace.remember(pieces.pairs[-1][1], list(streams.after))
        block_streams(small, plan.seeded)  # its activations move too
        where, share = streams.worst()[0] if streams.blame else ("", 0.0)
        out: Numbers = {"worst_block": where, "worst_block_error": share}
        old, new = logits_of(pieces.before, streams.before), logits_of(pieces.after, streams.after)
        first = logits_of(pieces.before, plan.base)
        if old is None or new is None or first is None:
            return {**self._without_logits(p, streams), **out}
        ids = trace.sequence.ids
        near, far = diverge(old, new, ids), diverge(first, new, ids)
        text = f"{ids.size} tokens of {trace.sequence.source}"
        hold_limits(p.name, options, near, far, streams, text)
        out |= {**near.to_json(), **far.to_json("_first"), "worst_positions": ", ".join(map(str, near.worst()))}
        limits = {"max_kl": options.max_kl, "min_top1": options.min_top1}
        given: Numbers = {k: v for k, v in limits.items() if v is not None}
        return out | given | ({} if given else {"status": "measured: no limit was given"})

    def _long(self, p: Pass, before: Graph, after: Graph, short: Numbers) -> Numbers:
        """Numbers on a long text beside those on the short one, where the pass changes nothing or little."""
        found, report = check_long(p, before, after, self.options, self._context, self.note)
        self.reports |= {} if report is None else {report.name: report}
        kept: Numbers = {f"{k}_short": short[k] for k in ("kl", "top1") if k in short}
        rest = {k: v for k, v in short.items() if k in ("status", "max_kl", "min_top1")}
        return {**rest, **kept, **found}

    def _without_logits(self, p: Pass, streams: Streams) -> Numbers:
        error = distance(streams.before, streams.after)
        if self.options.max_kl is not None or self.options.min_top1 is not None:
            raise UsageError(f"--max-kl and --min-top1 compare logits, and the outputs behind {p.name} are none")
        if not np.isfinite(error):
            raise PassError(f"{p.name}: outputs that were numbers are none after it", when=f"pass {p.name}")
        return {
            "status": "measured: no limit was given", "relative_error": error,
            "max_error": difference(streams.before, streams.after),
        }  # fmt: skip


def _first(pieces: Pieces, trace: Trace, tokens: int) -> str:
    """The block that went wrong first in graphs compared whole: they are cut now that time does not matter."""
    names = shared_cuts(pieces.before, pieces.after, tokens)
    again = Trace(trace.sequence)
    again.record(pieces.before, set(names))
    return walk(Pieces.of(pieces.before, pieces.after, names), again, _exactly).strayed


def _exactly(graph: Graph) -> float:
    return 0.0


def _rounded(graph: Graph) -> float:
    return rounding_bound(graph, float(np.finfo(np.float32).eps))


def _broken(p: Pass, what: str, first: str) -> PassError:
    return PassError(f"{p.name} {what}", where=f"first at {first}" if first else "", when=f"pass {p.name}")


def memory_bound(pieces: Pieces, plan: Plan, kept: list[str]) -> int:
    """Bytes of arrays that a check may hold at once: what is stored between runs, the largest run, and comparing.

    Args:
        kept: Names of values of both graphs that runs of the whole keep beside their outputs.
    """
    stored = sum(t.stored_bytes() for t in (plan.calibration, plan.seeded)) + sum(a.nbytes for a in plan.base)
    runs = [0]
    for graph, blocks in zip((pieces.before, pieces.after), zip(*pieces.pairs, strict=True), strict=True):
        long, short = (sequence_dims(graph, t.sequence.ids.size) for t in (plan.calibration, plan.seeded))
        for block, changed in zip(blocks, pieces.changed, strict=True):
            if changed:
                runs += [peak_bytes(block.graph, long), peak_bytes(block.graph, short, wide=True)]
    env = sequence_dims(pieces.before, plan.tokens)
    cuts = 2 * sum(v.tensor.nbytes(env) for n in pieces.before.nodes for v in n.results if v.name in set(kept))
    return stored + max(runs) + cuts + comparing_bytes(plan.base)


def comparing_bytes(outputs: list[Array]) -> int:
    """Chunks in f64, and log probabilities of a few tokens."""
    return 8 * max(6 * CHUNK, max((8 * ROWS * a.shape[-1] for a in outputs if a.ndim), default=0))


def make_plan(graph: Graph, options: EvidenceOptions) -> Plan:
    """Whole or by blocks, on how many tokens; and the first graph's outputs and activations."""
    flops = cost(graph, options.tokens).flops
    mode = options.mode if options.mode != "auto" else "whole" if flops <= WHOLE_FLOPS else "blocks"
    tokens = min(options.tokens, max(FEWEST, int(options.tokens * WHOLE_FLOPS / max(flops, 1))))
    env = sequence_dims(graph, tokens)
    out = sum(v.type.nbytes(env) for v in graph.outputs if isinstance(v.type, TensorType))
    tokens = max(min(tokens, FEWEST), min(tokens, tokens * OUTPUT_BYTES // max(out, 1)))
    calibration, seeded = map(Trace, sequences(graph, options, tokens))
    if mode == "blocks":
        base = calibration.record(graph)
    else:
        (block,) = (old for old, _ in Pieces.of(graph, graph, []).pairs)
        base = calibration.outputs(graph, block, None)
    seeded.record(graph)
    return Plan(mode, calibration, seeded, base)


def cannot_run(graph: Graph) -> str:
    """Why the reference interpreter cannot run ``graph``; empty when it can."""
    for value in graph.inputs:
        if isinstance(value.type, HandleType) and value.type.kind != "kv_cache":
            return f"input %{value.name} is a {value.type}"
    for value, const in graph.consts.items():
        if _without_data(const):
            return f"constant %{value.name} is declared without data"
    return ""


def _without_data(const: Const) -> bool:
    data = const.data
    if isinstance(data, OpData):
        return any(map(_without_data, data.operands))
    return isinstance(data, DigestData) or (isinstance(data, DeclaredData) and data.seed is None)
