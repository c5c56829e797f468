"""From matched nodes to changes: attributes, types, constants, wiring, and what took the place of what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from fretsaw.ir import Const, Graph, Node, OpData, Value, get_op
from fretsaw.ir.consts import FileData
from fretsaw.ir.op import has_op
from fretsaw.ir.printer import attr_text, const_text
from fretsaw.tools.diff.match import Matching, slots
from fretsaw.tools.diff.replaced import replaced
from fretsaw.tools.report.layers import layer_of


@dataclass(frozen=True)
class Change:
    """One difference at one place.

    Args:
        kind: ``changed``, ``replaced``, ``added``, ``removed`` or ``graph``.
        stack, layer: The list of layers and the number in it; no number outside of layers.
        place: Op or module path below the layer.
        text: What differs, without names of values and layers, so that equal layers say the same.
        order: Position in the program, for sorting.
    """

    kind: str
    stack: str
    layer: int | None
    place: str
    text: str
    order: float


def changes(m: Matching) -> list[Change]:
    """Every difference between the two graphs of ``m``, in program order."""
    found = [*_heads(m)]
    counts = _op_counts(m.before) | _op_counts(m.after)  # the larger count of either side
    gone, new = {id(n) for n in m.removed}, {id(n) for n in m.added}
    for old, now in m.pairs:
        stack, layer, rest = split(old)
        unique = bool(counts[stack, layer, old.op] == 1 and layer is not None)
        place = old.op if unique or not rest else f"{rest} {old.op}"
        for text in _differences(m, old, now, gone, new):
            found.append(Change("changed", stack, layer, place, text, m.before.position(old)))
    for r in replaced(m):
        first = (r.removed or r.added)[0]
        stack, layer, _ = split(first)
        order = m.before.position(first) if r.removed else len(m.before.nodes) * _share(m.after, first)
        found.append(Change(r.kind, stack, layer, r.place, r.text, order))
    return sorted(found, key=lambda c: c.order)


def split(node: Node) -> tuple[str, int | None, str]:
    """(stack, layer, path below it); outside of layers (module, None, module)."""
    layer = layer_of(node.loc.module)
    if layer is None:
        return node.loc.module, None, node.loc.module
    stack, number = layer
    return stack, number, node.loc.module.removeprefix(f"{stack}.{number}").removeprefix(".")


def _share(graph: Graph, node: Node) -> float:
    return graph.position(node) / max(1, len(graph.nodes))


def _op_counts(graph: Graph) -> Counter[tuple[str, int | None, str]]:
    return Counter((*split(n)[:2], n.op) for n in graph.nodes)


def _heads(m: Matching) -> Iterator[Change]:
    """Phase, inputs, ranges of symbols and outputs."""

    def say(place: str, text: str) -> Change:
        return Change("graph", "", None, place, text, -1)

    a, b = m.before, m.after
    if a.phase != b.phase:
        yield say("phase", f"{a.phase} -> {b.phase}")
    for place, old, new in (("input", a.inputs, b.inputs), ("output", a.outputs, b.outputs)):
        was, now = ({v.name: str(v.type) for v in values} for values in (old, new))
        if place == "output" and len(old) == len(new):  # outputs are known by their order
            was, now = ({f"{i}": str(v.type) for i, v in enumerate(values)} for values in (old, new))
        yield from (say(f"{place} {n}", _step(was.get(n), now.get(n))) for n in _differing(was, now))
    ranges = [{k: f"[{low}, {high}]" for k, (low, high) in g.dims.items()} for g in (a, b)]
    yield from (say(f"symbol {n}", _step(ranges[0].get(n), ranges[1].get(n))) for n in _differing(*ranges))
    for i, (out, other) in enumerate(zip(a.outputs, b.outputs, strict=False)):
        known = a.producer(out) is None or out in m.partner
        if known and m.partner.get(out, other) != other:
            yield say(f"output {i}", "is computed by another node")


def _differing(a: dict[str, str], b: dict[str, str]) -> list[str]:
    return [n for n in dict.fromkeys([*a, *b]) if a.get(n) != b.get(n)]


def _step(old: str | None, new: str | None) -> str:
    return f"{'absent' if old is None else old} -> {'absent' if new is None else new}"


def _differences(m: Matching, old: Node, new: Node, gone: set[int], added: set[int]) -> Iterator[str]:
    yield from _attributes(old, new)
    names = [slots(n) for n in (old, new)]
    if names[0] != names[1]:
        for name in dict.fromkeys([*names[0], *names[1]]):
            if (name in names[0]) != (name in names[1]):
                yield f"{name}: {'removed' if name in names[0] else 'added'}"
    moved = False
    for name, a in zip(names[0], old.operands, strict=True):
        if name not in names[1]:
            continue
        b = new.operands[names[1].index(name)]
        moved = moved or a.type != b.type
        yield from _operand(m, name, a, b, gone, added)
    types = [", ".join(str(v.type) for v in n.results) for n in (old, new)]
    if types[0] != types[1] and not moved and old.attrs == new.attrs:
        yield f"result {types[0]} -> {types[1]}"


def _attributes(old: Node, new: Node) -> Iterator[str]:
    specs = get_op(old.op).attrs if has_op(old.op) else {}
    a, b = dict(old.attrs), dict(new.attrs)
    for name in dict.fromkeys([*a, *b]):
        default = specs[name].default if name in specs else None
        was, now = a.get(name, default), b.get(name, default)
        if was != now:
            yield f"{name} {attr_text(was)} -> {attr_text(now)}"


def _operand(m: Matching, name: str, a: Value, b: Value, gone: set[int], added: set[int]) -> Iterator[str]:
    old, new = m.before.consts.get(a), m.after.consts.get(b)
    if old is not None and new is not None:
        if a.type != b.type:
            yield f"{name} {a.type} -> {b.type}"
        elif const_text(old) != const_text(new):
            yield f"{name} data {_kinds(old, new)}"
        return
    if (old is None) != (new is None):
        yield f"{name}: {'constant -> computed' if old is not None else 'computed -> constant'}"
        return
    makers = m.before.producer(a), m.after.producer(b)
    if any(p is not None and id(p) in rest for p, rest in zip(makers, (gone, added), strict=True)):
        return  # told where the node that made it was replaced
    if m.partner.get(a) != b:
        yield f"{name} reads {_source(m.after, b)} instead of {_source(m.before, a)}"


def _source(graph: Graph, value: Value) -> str:
    """What makes a value, without layer numbers and names that a rewrite may change."""
    node = graph.producer(value)
    if node is None:
        return f"input {value.name}"
    rest = split(node)[2]
    return f"{node.op} of {rest}" if rest else node.op


def _kinds(old: Const, new: Const) -> str:
    kinds = [_kind(c) for c in (old, new)]
    return "changed" if kinds[0] == kinds[1] else f"{kinds[0]} -> {kinds[1]}"


def _kind(const: Const) -> str:
    if isinstance(const.data, OpData):
        return f"{const.data.op}({', '.join(map(_kind, const.data.operands))})"
    return "file" if isinstance(const.data, FileData) else "data"
