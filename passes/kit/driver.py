"""The rule driver: tries rules at their roots, collects edits that do not meet, applies and verifies once per sweep."""

from __future__ import annotations

import random
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from fretsaw.ir import Const, Graph, Node, Value, verify
from fretsaw.ir.errors import FretsawError, PassError
from fretsaw.ir.excerpt import excerpt, place
from fretsaw.passes.kit import debug as checks
from fretsaw.passes.kit.edit import Decline, Edit
from fretsaw.passes.kit.liveness import prune
from fretsaw.passes.kit.outcome import Outcome

ANY = "*"  # root of a rule that is tried at every node
BUDGET_PER_NODE = 4  # edits per node of the first graph before the driver stops
LAST_SHOWN = 10  # sites that the message of a spent budget names
Verdict = Edit | Decline | None  # None: the root has not even the shape that the rule looks for
RuleFn = Callable[[Node, Graph], Verdict]


class Rule(Protocol):
    """What the driver has to know of a rule."""

    @property
    def name(self) -> str: ...

    @property
    def roots(self) -> frozenset[str]:
        """Ops at whose nodes it is tried."""

    @property
    def fn(self) -> RuleFn | None:
        """The rule with its options filled in."""

    @property
    def body(self) -> Callable[..., Any] | None:
        """The function as its author wrote it."""


R = TypeVar("R", bound=Rule)


def run_rules(
    graph: Graph,
    members: Sequence[Rule],
    *,
    shuffle: random.Random | None = None,
    debug: bool | None = None,
    edits: int | None = None,
) -> Outcome:
    """Apply rules until none of them fires.

    Args:
        edits: Stop after that many edits, in the order of the driver: how `bisect` finds the first bad site.
        shuffle: Visits the nodes in a random order, to show that the result does not depend on it.
        debug: Check that rules leave the graph alone and that a random order gives the same graph; None: as
            :func:`fretsaw.passes.kit.debug.debugging` says.

    Raises:
        PassError: a rule failed, returned an edit that changes nothing, wrote into the graph, or the budget ran out.
        VerifyError: an edit broke an invariant; names the rule and the sweep.
    """
    checked = checks.debugging() if debug is None else debug
    outcome = _run(graph, members, shuffle, checked, edits)
    if checked and shuffle is None and edits is None and outcome.graph is not graph:
        other = _run(graph, members, random.Random(0), False)
        checks.demand_same_order(_names(members), outcome.graph, other.graph)
    return outcome


def _run(
    graph: Graph, members: Sequence[Rule], shuffle: random.Random | None, checked: bool, most: int | None = None
) -> Outcome:
    budget = BUDGET_PER_NODE * max(1, len(graph.nodes))
    made: list[tuple[str, Node]] = []  # rule and root of every edit
    hits: list[Node] = []
    sweeps = 0
    while True:
        sweeps += 1
        before = checks.digest(graph) if checked else ""
        with checks.locked(graph) if checked else nullcontext():
            edits, roots, declines = _collect(graph, members, shuffle)
        if checked:
            checks.demand_unchanged(_names(members), before, graph)
        if most is not None:
            edits, roots = edits[: most - len(hits)], roots[: most - len(hits)]
        if not edits:
            return Outcome(graph, tuple(hits), tuple(declines), sweeps)
        after, refused = apply_edits(graph, [edit for _, edit in edits], roots)
        declines += refused
        if len(refused) == len(edits):
            return Outcome(graph, tuple(hits), tuple(declines), sweeps)
        graph = after
        lost = {id(d.at) for d in refused}
        hits += [root for root in roots if id(root) not in lost]
        made += [(rule, root) for (rule, _), root in zip(edits, roots, strict=True)]
        verify(graph, when=f"after {'+'.join(dict.fromkeys(rule for rule, _ in edits))}, sweep {sweeps}")
        if len(made) > budget:
            raise _restless(members, made)


def _names(members: Sequence[Rule]) -> str:
    return "+".join(m.name for m in members)


def _restless(members: Sequence[Rule], made: Sequence[tuple[str, Node]]) -> PassError:
    """The budget is spent: which rules fired how often, and where last."""
    counts = ", ".join(f"{rule} {n} times" for rule, n in Counter(rule for rule, _ in made).most_common())
    last = "\n".join(f"{rule}  %{root.out.name} ({root.op})  {root.loc.module}" for rule, root in made[-LAST_SHOWN:])
    return PassError(
        f"{_names(members)} does not come to rest: over {BUDGET_PER_NODE} edits per node",
        where=place(made[-1][1]),
        when=f"rules fired: {counts}",
        context=last,
        hint=f"the last {min(LAST_SHOWN, len(made))} edits are above: each edit must make something less, "
        "which the docstring names under Stops",
    )


def _collect(
    graph: Graph, members: Sequence[Rule], shuffle: random.Random | None
) -> tuple[list[tuple[str, Edit]], list[Node], list[Decline]]:
    """Edits of one sweep that do not meet, each with its rule, their roots, and the declines."""
    by_op: dict[str, list[Rule]] = defaultdict(list)
    for member in members:
        for op in member.roots:
            by_op[op].append(member)
    nodes: Sequence[Node] = graph.nodes
    if shuffle is not None:
        nodes = list(nodes)
        shuffle.shuffle(nodes)
    edits: list[tuple[str, Edit]] = []
    roots: list[Node] = []
    declines: list[Decline] = []
    touched: set[int] = set()
    guarded: set[int] = set()  # nodes whose meaning changes in this sweep, or that such an edit relies on
    relied_on: set[int] = set()  # nodes that the edits of this sweep read: none may change its meaning any more
    for node in nodes:
        for member in [*by_op.get(node.op, ()), *by_op.get(ANY, ())]:
            verdict = _try(member, node, graph)
            if isinstance(verdict, Decline):
                declines.append(verdict)
            if not isinstance(verdict, Edit):
                continue
            mine, reads = verdict.touched(graph), verdict.reads(graph)
            if mine & touched or (mine | reads) & guarded:
                continue  # the next sweep sees this site again
            if verdict.exclusive and (reads & touched or mine & relied_on):
                continue
            touched |= mine
            relied_on |= reads
            guarded |= (mine | reads) if verdict.exclusive else set()
            edits.append((member.name, verdict.stamped(member.name)))
            roots.append(node)
            break
    if shuffle is not None:  # edits are applied in node order whatever order found them: output names depend on it
        order = sorted(range(len(roots)), key=lambda i: graph.position(roots[i]))
        edits, roots = [edits[i] for i in order], [roots[i] for i in order]
    return edits, roots, declines


def verdicts(graph: Graph, members: Sequence[R]) -> Iterator[tuple[R, Node, Verdict]]:
    """What every rule says at every node of its root ops, nothing applied: how `explain` sees near misses.

    Raises:
        PassError: a rule failed, or returned an edit that changes nothing.
    """
    for node in graph.nodes:
        for member in members:
            if node.op in member.roots or ANY in member.roots:
                yield member, node, _try(member, node, graph)


def _try(member: Rule, node: Node, graph: Graph) -> Verdict:
    fn = member.fn
    assert fn is not None, f"{member.name} is not a rule"
    when = f"pass {member.name}"
    try:
        verdict: object = fn(node, graph)  # a plugin's author may not check types
    except FretsawError as error:
        context = excerpt(graph, node)
        raise PassError(f"{member.name} failed: {error.what}", where=place(node), when=when, context=context) from error
    except Exception as error:  # a rule may be a user's: name it, its node and its line once, here
        frames = traceback.extract_tb(error.__traceback__)
        own = getattr(getattr(member.body, "__code__", None), "co_filename", "")
        frame = next((f for f in reversed(frames) if f.filename == own), frames[-1])
        what = f"{member.name} failed: {type(error).__name__}: {error}"
        context = f"  {frame.filename}:{frame.lineno}\n> {frame.line}"
        raise PassError(what, where=place(node), when=when, context=context) from error
    if verdict is None or isinstance(verdict, Decline):
        return verdict
    if not isinstance(verdict, Edit):
        got = type(verdict).__name__
        what = f"{member.name} returned {got}, not an Edit, a Decline or None"
        raise PassError(what, where=place(node), when=when, context=excerpt(graph, node))
    if verdict.idle():
        what = f"{member.name} returned an edit that changes nothing"
        hint = "return a Decline that says why the site is left alone, or None where it is none"
        raise PassError(what, where=place(node), when=when, context=excerpt(graph, node), hint=hint)
    return verdict


def apply_edits(graph: Graph, edits: Sequence[Edit], roots: Sequence[Node]) -> tuple[Graph, list[Decline]]:
    """The graph with ``edits`` applied and dead nodes removed, and a decline per edit that could not be applied."""
    taken = {v.name for v in graph.values()}
    kept, renames, refused = _keep_output_names(graph, [_with_fresh_names(e, taken) for e in edits], roots)
    target = _resolve([pair for edit in kept for pair in edit.redirects])
    rewritten = {id(old): new for edit in kept for old, new in edit.rewritten}
    inserted: dict[int, list[Node]] = defaultdict(list)
    consts: dict[Value, Const] = dict(graph.consts)
    for edit in kept:
        consts.update(edit.consts)
        for before, new in edit.inserted:
            inserted[id(before)].append(new)
    dropped = set(renames.values())  # outputs whose names now belong to what replaced them
    final = {old: renames.get(to, to) for old, to in target.items()} | renames
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += [_renamed(new, final, renames) for new in inserted.get(id(node), ())]
        if not any(v in dropped for v in node.results):
            nodes.append(_renamed(rewritten.get(id(node), node), final, renames))
    outputs = tuple(v if v in dropped else final.get(v, v) for v in graph.outputs)
    return prune(replace(graph, nodes=tuple(nodes), consts=consts, outputs=outputs)), refused


def _keep_output_names(
    graph: Graph, edits: Sequence[Edit], roots: Sequence[Node]
) -> tuple[list[Edit], dict[Value, Value], list[Decline]]:
    """Graph outputs keep their names: what replaces an output takes its name over, or the edit is refused."""
    kept: list[Edit] = []
    refused: list[Decline] = []
    pairs: list[tuple[Value, Value]] = []
    for edit, root in zip(edits, roots, strict=True):
        if _renames(graph, [*pairs, *edit.redirects], [*kept, edit]) is None:
            refused.append(Decline("a graph output must keep its name, and its source has one of its own", at=root))
        else:
            pairs += edit.redirects
            kept.append(edit)
    renames = _renames(graph, pairs, kept)
    assert renames is not None
    return kept, renames, refused


def _renames(graph: Graph, pairs: Sequence[tuple[Value, Value]], edits: Iterable[Edit]) -> dict[Value, Value] | None:
    if not any(old in graph.output_set for old, _ in pairs):
        return {}
    made = {v for edit in edits for _, new in edit.inserted for v in new.results}
    target, out = _resolve(pairs), dict[Value, Value]()
    for old in graph.outputs:
        if old not in target:
            continue
        new, producer = target[old], graph.producer(old)
        computed = new in made or graph.producer(new) is not None
        if not computed or new in graph.output_set or new in out or producer is None or len(producer.results) > 1:
            return None
        out[new] = old
    return out


def _resolve(pairs: Sequence[tuple[Value, Value]]) -> dict[Value, Value]:
    """Redirects followed to their ends."""
    step = dict(pairs)
    out: dict[Value, Value] = {}
    for old in step:
        chain, at = {old}, step[old]
        while at in step and at not in chain:
            chain.add(at)
            at = step[at]
        out[old] = at
    return out


def _with_fresh_names(edit: Edit, taken: set[str]) -> Edit:
    """The edit with new values renamed where their names are taken; ``taken`` grows."""
    fresh: dict[Value, Value] = {}
    for value in [*edit.consts, *(v for _, new in edit.inserted for v in new.results)]:
        name, i = value.name, 0
        while name in taken:
            i += 1
            name = f"{value.name}_{i}"
        taken.add(name)
        if name != value.name:
            fresh[value] = Value(name, value.type)
    if not fresh:
        return edit
    out = Edit()
    out.rewritten = [(old, _renamed(new, fresh, {})) for old, new in edit.rewritten]
    out.inserted = [(before, _renamed(new, fresh, fresh)) for before, new in edit.inserted]
    out.redirects = [(old, fresh.get(new, new)) for old, new in edit.redirects]
    out.consts = {fresh.get(value, value): const for value, const in edit.consts.items()}
    out.exclusive = edit.exclusive
    return out


def _renamed(node: Node, operands: Mapping[Value, Value], results: Mapping[Value, Value]) -> Node:
    """``node`` reading and defining other values."""
    if not any(v in operands for v in node.operands) and not any(v in results for v in node.results):
        return node
    return replace(
        node,
        operands=tuple(operands.get(v, v) for v in node.operands),
        results=tuple(results.get(v, v) for v in node.results),
    )
