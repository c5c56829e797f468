"""Join projections of one value into one: the shared part of `merge_qkv` and `merge_gate_up`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fretsaw.ir import Const, Graph, Node, OpData, TensorType, Value
from fretsaw.ir.types import numpy_dtype
from fretsaw.passes.api import Decline, Edit
from fretsaw.passes.kit.match import last_axis


def merge(g: Graph, linears: Sequence[Node], name: str) -> Edit | Decline:
    """One linear with the weights one below the other, and a slice in place of each of ``linears``.

    It keeps their storage format; where they have different ones, the numbers of all of them in their dtype.
    """
    first = min(linears, key=g.position)
    for node in linears:
        if node["input"] != first["input"]:
            return Decline("the projections read different values", at=node)
        if any(v not in g.consts for v in node.operands[1:]):
            return Decline("weight or bias is computed", at=node)
        if len(g.uses(node["weight"])) > 1:
            return Decline("the weight is tied; joining would copy it", at=node)
    edit = Edit()
    path = _prefix([n["weight"].name for n in linears]) + name
    params = [_joined(edit, g, [n["weight"] for n in linears], f"{path}.weight")]
    biases = [n.get("bias") for n in linears]
    if any(b is not None for b in biases):
        filled = [b if b is not None else _zeros(edit, n) for b, n in zip(biases, linears, strict=True)]
        params.append(_joined(edit, g, filled, f"{path}.bias"))
    loc = linears[0].loc
    whole = edit.insert("linear", first["input"], *params, before=first, name=f"{linears[0].out.name}.{name}", loc=loc)
    start = 0
    for node in linears:
        size = node.out.tensor.shape[-1]
        assert isinstance(size, int)
        edit.rewrite(node, "slice", whole, axis=last_axis(node.out), start=start, end=start + size)
        start += size
    return edit


def _zeros(edit: Edit, node: Node) -> Value:
    kind = node["weight"].tensor
    size = kind.shape[0]
    assert isinstance(size, int)
    return edit.const(f"{node.out.name}.no_bias", Const.of(np.zeros(size, numpy_dtype(kind.dtype)), kind.dtype))


def _joined(edit: Edit, g: Graph, values: Sequence[Value], name: str) -> Value:
    consts = tuple(edit.consts[v] if v in edit.consts else g.consts[v] for v in values)
    rows = [c.type.shape[0] for c in consts]
    kind = TensorType(consts[0].type.dtype, (sum(r for r in rows if isinstance(r, int)), *consts[0].type.shape[1:]))
    return edit.const(name, Const(kind, OpData("concat", consts, (("axis", 0),))))


def _prefix(names: Sequence[str]) -> str:
    """The dotted path that all names share, with its last dot."""
    parts = [n.split(".") for n in names]
    shared: list[str] = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return "".join(f"{p}." for p in shared)
