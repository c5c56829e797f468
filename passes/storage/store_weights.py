"""Keep the matrices of the model in another storage format.

    const %w: f32[O, D] = ...            ==>      const %w: f32[O, D] as f16 = ...
    %y = linear(%x, %w)                           %y = linear(%x, %w)

Why:    decoding reads every weight for every token: half the bytes are half the time, and half the memory.
Needs:  constants that ops read as weights (projections, tables of embeddings, experts). Vectors stay as they are.
Keeps:  bits where the format holds every number of every weight (a checkpoint in bf16 kept as bf16, anything as f32);
        budget otherwise.
Stops:  one walk over the nodes.
Source: IEEE 754-2019, section 5.4.2 (conversions); common practice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fretsaw.ir import Const, Graph, Node, OpData, Value, get_op
from fretsaw.ir.errors import VerifyError
from fretsaw.ir.formats import FORMATS
from fretsaw.passes.api import Decline, Keeps, Outcome, Stored, graph_pass
from fretsaw.passes.storage.options import check_format


@dataclass(frozen=True)
class StoreWeights:
    """Options of the pass.

    Args:
        format: Storage format of the weights; arithmetic is f32 in each.
    """

    format: str = "bf16"

    def __post_init__(self) -> None:
        check_format(self.format)


@graph_pass(phase="packed", keeps="budget", options=StoreWeights)
def store_weights(g: Graph, options: StoreWeights) -> Outcome:
    """Every weight in the format of the options."""
    consts = dict(g.consts)
    hits: list[Node] = []
    declines: list[Decline] = []
    stored: list[Stored] = []
    keeps: Keeps = "bits"
    seen: set[Value] = set()
    for node, value in _weights(g):
        const = g.consts.get(value)
        if const is None:
            declines.append(Decline(f"the weight %{value.name} is computed", at=node))
        elif const.format == options.format:
            declines.append(Decline(f"the weight is kept as {options.format} already", at=node, already=True))
        elif const.type.dtype not in FORMATS[options.format].dtypes:
            declines.append(Decline(f"{options.format} cannot hold numbers of {const.type.dtype}", at=node))
        elif value not in seen:
            made = consts[value] = _kept(const, options.format)
            hits.append(node)
            stored.append(Stored(value.name, const.format, made.format, const.nbytes, made.nbytes))
            keeps = keeps if keeps == "budget" or _same(const, made) else "budget"
        seen.add(value)
    graph = replace(g, consts=consts) if hits else g
    return Outcome(graph, tuple(hits), tuple(declines), keeps=keeps, stored=tuple(stored))


def _weights(g: Graph) -> Iterator[tuple[Node, Value]]:
    """Operands that are matrices of weights, with the nodes that read them."""
    for node in g.nodes:
        for slot in get_op(node.op).weights:
            yield node, node[slot]


def _kept(const: Const, name: str) -> Const:
    """``const`` in the format ``name``, rounded from the numbers that it has now."""
    if const.is_exact:
        return replace(const, format=name)
    now = OpData("cast", (const,), (("dtype", const.type.dtype),))
    return Const(const.type, now, const.source, name)


def _same(before: Const, after: Const) -> bool:
    """Whether both give the same numbers; loads them only where that is not known."""
    if after.is_exact:
        return True
    try:
        return np.array_equal(before.load(), after.load(), equal_nan=True)
    except VerifyError:  # it is declared without data: nobody knows its numbers
        return False
