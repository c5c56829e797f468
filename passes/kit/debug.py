"""Checks of rules that cost as much as the rules themselves: on in tests and behind ``debug=True``.

A rule is pure: it may not change the graph that it looks at, and what comes out may not depend on the order in which
nodes are visited. A graph is frozen, yet its arrays and mappings are Python's: here arrays are locked while rules look
at them, and their digests are compared afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

import numpy as np

from fretsaw.ir import Const, Graph, OpData, Value, to_text
from fretsaw.ir.consts import ArrayData
from fretsaw.ir.errors import PassError

SMALL = 4096  # elements; larger arrays are locked but not digested
_ON: ContextVar[bool] = ContextVar("debug", default=False)


def debugging() -> bool:
    """Whether rules are checked where a caller does not say."""
    return _ON.get()


@contextmanager
def debug(on: bool = True) -> Iterator[None]:
    """Check rules inside the block, or not."""
    token = _ON.set(on)
    try:
        yield
    finally:
        _ON.reset(token)


@contextmanager
def locked(graph: Graph) -> Iterator[None]:
    """Arrays of the graph's constants are read-only inside the block, so that a rule that writes one fails there."""
    arrays = [a for a in _arrays(graph) if a.flags.writeable]
    for array in arrays:
        array.flags.writeable = False
    try:
        yield
    finally:
        for array in sorted(arrays, key=lambda a: a.base is not None):  # a view can be unlocked only after its owner
            array.flags.writeable = True


def digest(graph: Graph) -> str:
    """Changes when a small array, an attribute, or the set of constants does."""
    state = hashlib.sha256()
    for value, const in graph.consts.items():
        state.update(value.name.encode())
        state.update(_const_digest(const))
    state.update(repr([(n.op, n.attrs, n.__dict__.get("_attrs", dict(n.attrs))) for n in graph.nodes]).encode())
    state.update(repr(sorted(graph.dims.items())).encode())
    return state.hexdigest()


def demand_unchanged(names: str, before: str, graph: Graph) -> None:
    """Raise when ``graph`` has not the digest ``before`` any more: a rule wrote into it."""
    if digest(graph) != before:
        raise PassError(
            f"{names} changed the graph that it looked at",
            when=f"pass {names}, debug check",
            hint="a rule is pure: changes belong in the Edit that it returns",
        )


def demand_same_order(names: str, result: Graph, shuffled: Graph) -> None:
    """Raise when another order of visiting nodes gave another graph."""
    ours, theirs = canonical_text(result).splitlines(), canonical_text(shuffled).splitlines()
    if ours == theirs:
        return
    pairs = zip(ours, theirs, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
    raise PassError(
        f"{names} gives another graph when nodes are visited in another order",
        when=f"pass {names}, debug check",
        context=f"in order  {_line(ours, at)}\nshuffled  {_line(theirs, at)}",
        hint="the verdict on a root may depend on the graph alone, and edits that meet must give the same either way",
    )


def canonical_text(graph: Graph) -> str:
    """The text with values named by position, so that only structure counts; constants in order of their first
    use, the head line at the end."""
    used = dict.fromkeys(v for n in graph.nodes for v in n.operands)
    order = [v for v in [*used, *graph.outputs] if v in graph.consts]
    consts = {v: graph.consts[v] for v in dict.fromkeys([*order, *graph.consts])}
    names: dict[Value, Value] = {}
    for value in [*consts, *(v for n in graph.nodes for v in n.results)]:
        names[value] = Value(f"v{len(names)}", value.type)
    nodes = tuple(
        replace(n, operands=tuple(names.get(v, v) for v in n.operands), results=tuple(names[v] for v in n.results))
        for n in graph.nodes
    )
    outputs = tuple(names.get(v, v) for v in graph.outputs)
    text = to_text(replace(graph, consts={names[v]: c for v, c in consts.items()}, nodes=nodes, outputs=outputs))
    head, _, body = text.partition("\n")
    return f"{body}\n{head}"  # names of outputs last: the first difference is then where it began


def _line(lines: Sequence[str], at: int) -> str:
    return lines[at].strip() if at < len(lines) else "(end)"


def _arrays(graph: Graph) -> Iterator[np.ndarray]:
    todo = list(graph.consts.values())
    while todo:
        data = todo.pop().data
        if isinstance(data, ArrayData):
            yield data.array
        elif isinstance(data, OpData):
            todo += data.operands


def _const_digest(const: Const) -> bytes:
    data = const.data
    if isinstance(data, ArrayData):
        return data.array.tobytes() if data.array.size <= SMALL else b""
    if isinstance(data, OpData):
        return data.op.encode() + b"".join(map(_const_digest, data.operands))
    return str(const.type).encode()
