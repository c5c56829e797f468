"""What a pass has to reach: sites it must not leave behind, how many, in which layers. Held after the pass.

A contract answers two questions about one run of a pass: how many sites it demanded of the graph before, and what was
missed. :func:`hold` turns what was missed into one error with every site and every decline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fretsaw.ir import Graph, Node
from fretsaw.ir.errors import PassError
from fretsaw.ir.excerpt import excerpt, place
from fretsaw.passes.kit.edit import Decline
from fretsaw.passes.kit.outcome import Outcome

SiteFn = Callable[[Graph], Sequence[Node]]
MISSED_SHOWN, DECLINES_SHOWN = 20, 40


@dataclass(frozen=True)
class Missed:
    """One breach of a contract: a line for the reader, and the module path where there is one."""

    text: str
    module: str = ""
    node: Node | None = field(default=None, compare=False)


class Contract(ABC):
    """Which sites a pass has to reach."""

    standing = False  # True: holds also when nobody asked for the pass, because the sites themselves demand it
    allows_none = False  # True: a requested pass may reach no site at all

    @abstractmethod
    def says(self) -> str:
        """The contract in a few words, for `fretsaw passes`."""

    def demanded(self, before: Graph) -> int:
        """Sites of ``before`` that the pass has to reach; 0 where the contract names none."""
        return 0

    @abstractmethod
    def missed(self, before: Graph, outcome: Outcome) -> list[Missed]:
        """What the contract still wants after the pass; empty when it is kept."""


@dataclass(frozen=True)
class Anything(Contract):
    """No demand: the pass may find nothing to do, also when it was requested."""

    allows_none = True

    def says(self) -> str:
        return "any number of sites, none too"

    def missed(self, before: Graph, outcome: Outcome) -> list[Missed]:
        return []


@dataclass(frozen=True)
class Cleared(Contract):
    """None of the nodes that ``find`` returns may be left.

    Args:
        find: From a graph to the nodes that have to be gone after the pass.
    """

    find: SiteFn
    standing = True

    def says(self) -> str:
        name = getattr(self.find, "__name__", "")
        shown = name.strip("_").replace("_", " ") if name != "<lambda>" else _called(self.find)
        return f"leaves none of: {shown}"

    def demanded(self, before: Graph) -> int:
        return len(self.find(before))

    def missed(self, before: Graph, outcome: Outcome) -> list[Missed]:
        return [_missed_node(n) for n in self.find(outcome.graph)]


@dataclass(frozen=True)
class OnePer(Contract):
    """Exactly one site for every node of op ``op``: the node itself, or a node of the same module."""

    op: str
    standing = True

    def says(self) -> str:
        return f"one per {self.op}"

    def demanded(self, before: Graph) -> int:
        return before.count(self.op)

    def missed(self, before: Graph, outcome: Outcome) -> list[Missed]:
        hits = Counter(map(site_name, outcome.hits))
        elsewhere = Counter(n.loc.module for n in outcome.hits if n.op != self.op and n.loc.module)
        already = {d.at.loc.module for d in outcome.declines if d.already}
        out: list[Missed] = []
        for node in before.nodes:
            if node.op != self.op:
                continue
            count = hits[site_name(node)] + sum(c for path, c in elsewhere.items() if _same_module(path, node))
            if count > 1:
                out.append(Missed(f"reached {count} times  {_at(node)}", node.loc.module, node))
            elif count == 0 and not any(_same_module(path, node) for path in already if path):
                out.append(_missed_node(node))
        return out


@dataclass(frozen=True)
class AtLeast(Contract):
    """At least ``count`` sites. The contract of every pass that declares no other."""

    count: int = 1

    def says(self) -> str:
        return f"at least {self.count} site{'s' if self.count != 1 else ''}"

    def demanded(self, before: Graph) -> int:
        return self.count

    def missed(self, before: Graph, outcome: Outcome) -> list[Missed]:
        found = len(reached(outcome, before)) or int(outcome.graph is not before)
        return [] if found >= self.count else [Missed(f"reached {found} of {self.says()}")]


@dataclass(frozen=True)
class Layers(Contract):
    """Exactly these layers, each at least once. A site's layer is the first number in its module path (`layers.7.`).

    Args:
        numbers: The layers, counted from 0.
    """

    numbers: tuple[int, ...]

    def says(self) -> str:
        return f"exactly the layers {', '.join(map(str, self.numbers)) or '(none)'}"

    def demanded(self, before: Graph) -> int:
        return len(self.numbers)

    def missed(self, before: Graph, outcome: Outcome) -> list[Missed]:
        sites = [*outcome.hits, *(d.at for d in outcome.declines if d.already)]
        found = {layer_of(n.loc.module) for n in sites}
        out = [Missed(f"layer {n} has no site") for n in self.numbers if n not in found]
        wanted = set(self.numbers)
        for node in outcome.hits:
            layer = layer_of(node.loc.module)
            if layer is None:
                out.append(Missed(f"reached outside every layer  {_at(node)}", node.loc.module, node))
            elif layer not in wanted:
                out.append(Missed(f"reached layer {layer}, which is not in the list  {_at(node)}", node.loc.module))
        return out


def layer_of(module: str) -> int | None:
    """The first number in a module path: ``model.layers.7.mlp.experts.3`` is in layer 7; None outside the layers."""
    return next((int(part) for part in module.split(".") if part.isdigit()), None)


def reached(outcome: Outcome, before: Graph) -> set[str]:
    """Names of distinct sites that were rewritten, or that had the wanted form before the pass came."""
    there = {(n.op, n.results) for n in before.nodes}  # what the pass made has the wanted form too, but was counted
    already = [d.at for d in outcome.declines if d.already and (d.at.op, d.at.results) in there]
    return {site_name(n) for n in [*outcome.hits, *already]}


def site_name(node: Node) -> str:
    """The name of a site, which a rewrite keeps: its first result; of a node without one, its module path and op."""
    return f"%{node.results[0].name}" if node.results else f"{node.loc.module}:{node.op}"


def hold(name: str, contract: Contract, before: Graph, outcome: Outcome, *, requested: bool) -> None:
    """Hold one run of pass ``name`` to its contract.

    Args:
        outcome: Its hits include those of earlier runs of the pass in the same compile.
        requested: The user asked for the pass, so that it must reach a site; else only standing contracts count.

    Raises:
        PassError: lists what was missed, with module paths, and every decline.
    """
    if not (requested or contract.standing):
        return
    missed = contract.missed(before, outcome)
    found = reached(outcome, before) or outcome.graph is not before
    if requested and not contract.allows_none and not found:
        raise _breach(f"{name} was requested and reached no site", name, missed, before, outcome)
    if missed:
        raise _breach(_headline(name, contract, before, missed), name, missed, before, outcome)


def _headline(name: str, contract: Contract, before: Graph, missed: Sequence[Missed]) -> str:
    if isinstance(contract, (Cleared, OnePer)):
        return f"{name} missed {len(missed)} of {contract.demanded(before)} sites"
    return f"{name} did not keep its contract: {contract.says()}"


def _breach(what: str, name: str, missed: Sequence[Missed], before: Graph, outcome: Outcome) -> PassError:
    declines = distinct(outcome.declines)
    lines = [m.text for m in missed[:MISSED_SHOWN]] + _rest(len(missed), MISSED_SHOWN, "missed")
    lines += [decline_text(d) for d in declines[:DECLINES_SHOWN]] + _rest(len(declines), DECLINES_SHOWN, "declined")
    hint = "the declines above say what stood in the way at each node"
    if not declines:
        hint = f"no node has the shape that the pass looks for: see `fretsaw passes {name}`"
    where = next((m.module for m in missed if m.module), "")
    first = next((m.node for m in missed if m.node is not None), None)
    if first is not None:  # the gutter of the excerpt holds for all lines
        graph = outcome.graph if any(n is first for n in outcome.graph.nodes) else before
        where, lines = place(first), [excerpt(graph, first), *(f"  {line}" for line in lines)]
    return PassError(what, where=where, when=f"pass {name}", context="\n".join(lines), hint=hint)


def _rest(count: int, shown: int, word: str) -> list[str]:
    return [f"{word}  {count - shown} more"] if count > shown else []


def distinct(declines: Sequence[Decline]) -> list[Decline]:
    """One decline for each reason and module path, the first of each."""
    seen: dict[tuple[str, str], Decline] = {}
    for decline in declines:
        seen.setdefault((decline.reason, decline.at.loc.module), decline)
    return list(seen.values())


def decline_text(decline: Decline) -> str:
    """One line: where, and why not."""
    return f"declined  {_at(decline.at)}: {decline.reason}"


def _missed_node(node: Node) -> Missed:
    return Missed(f"missed  {_at(node)}", node.loc.module, node)


def _at(node: Node) -> str:
    name = f"%{node.results[0].name}" if node.results else node.op
    return f"{name} ({node.op})  {node.loc.module}"


def _same_module(path: str, node: Node) -> bool:
    """One module path lies in the other: ``layers.0.self_attn.q_proj`` belongs to the attention of ``self_attn``."""
    own = node.loc.module
    return bool(own) and (path == own or path.startswith(own + ".") or own.startswith(path + "."))


def _called(fn: SiteFn) -> str:
    """What a lambda that delays a name calls: ``lambda g: norm_sites(g)`` gives `norm sites`."""
    names = getattr(getattr(fn, "__code__", None), "co_names", ())
    return str(names[0]).strip("_").replace("_", " ") if names else "its sites"
