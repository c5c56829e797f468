"""Damage to graphs, of kinds that text cannot carry too: cycles, values with two types, attributes that are no data."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fretsaw.ir import (
    Attr,
    Const,
    DigestData,
    Graph,
    HandleType,
    Loc,
    Node,
    OpData,
    TensorType,
    Value,
    ValueType,
    catalogue,
    sym,
)
from fretsaw.ir.phases import PHASES

SHAPES = (
    (),
    (3,),
    (-1,),
    (0,),
    (2**70,),
    (sym("B"),),
    (sym("B") * -1,),
    (sym("true"), 2),
    (sym("nowhere"),),
    (10**5000,),
)
TYPES: tuple[ValueType, ...] = (
    *(TensorType("f32", s) for s in SHAPES),
    TensorType("q7", (2,)),  # type: ignore[arg-type]  # wrong on purpose
    HandleType("kv_cache"),
    HandleType("a b"),
)
NAMES = ("", "a b", "x", "%", "a\nb", "\ud800", "}", "\u2028", "x" * 10_000, "{", "0")
LOCS = (Loc("a\nb", "c\u2028", ("d,e", "<")), Loc(" ", ")", ()), Loc("(", "(", (">",)), Loc(rules=("a\0",)))
OPS = ("nonsense", "", "a b", "add\n", "linear", "concat", "full", "topk", "kv_append", "cos")
ATTRS: tuple[object, ...] = (
    None, True, -1, 2**63, 10**5000, 0.5, float("nan"), "f32", "\ud800\n\u2028", (), (1, "x"), (None,), (-1, 2),
    (True,), (sym("B"),), sym("inf"), sym("B") * 2**70, ((((1,),),),), [1], {"a": 1}, {1}, b"x", object, np.float64(1),
    np.int64(2), np.bool_(True), np.ones(2), 1j,
)  # fmt: skip
KEYS = ("axis", "shape", "eps", "dtype", "k", "unheard_of", "", "a b", "perm", "value", "size", "start")
Damage = Callable[[random.Random, Graph], Graph]


def _any_value(rng: random.Random, g: Graph) -> Value:
    known = list(g.values())
    if known and rng.random() < 0.7:
        value = rng.choice(known)
        return value if rng.random() < 0.7 else Value(value.name, rng.choice(TYPES))
    return Value(rng.choice(NAMES), rng.choice(TYPES))


def _node(rng: random.Random, g: Graph, node: Node) -> Node:
    """One node with one injury."""
    operands, results, attrs = list(node.operands), list(node.results), list(node.attrs)
    match rng.randint(0, 11):
        case 0 if operands:
            operands[rng.randrange(len(operands))] = _any_value(rng, g)
        case 1:
            rng.shuffle(operands)
        case 2:
            operands.append(_any_value(rng, g))
        case 3 if operands:
            operands.pop()
        case 4 if results:
            i = rng.randrange(len(results))
            results[i] = Value(results[i].name, rng.choice(TYPES))
        case 5:
            results.append(_any_value(rng, g))
        case 6 if results:
            results.pop()
        case 7 if attrs:
            i = rng.randrange(len(attrs))
            attrs[i] = (attrs[i][0], _attr(rng))
        case 8 if attrs:
            attrs.pop(rng.randrange(len(attrs)))
        case 9:
            attrs.insert(rng.randint(0, len(attrs)), (rng.choice(KEYS), _attr(rng)))
        case 10:
            return replace(node, op=rng.choice((*OPS, *catalogue())))
        case _:
            return replace(node, loc=rng.choice(LOCS))
    return replace(node, operands=tuple(operands), results=tuple(results), attrs=tuple(attrs))


def _attr(rng: random.Random) -> Attr:
    return rng.choice(ATTRS)  # type: ignore[return-value]  # wrong on purpose


def _one_node(rng: random.Random, g: Graph) -> Graph:
    if not g.nodes:
        return g
    i = rng.randrange(len(g.nodes))
    return replace(g, nodes=(*g.nodes[:i], _node(rng, g, g.nodes[i]), *g.nodes[i + 1 :]))


def _order(rng: random.Random, g: Graph) -> Graph:
    nodes = list(g.nodes)
    if not nodes:
        return g
    i, j = rng.randrange(len(nodes)), rng.randrange(len(nodes))
    match rng.randint(0, 3):
        case 0:
            nodes[i], nodes[j] = nodes[j], nodes[i]
        case 1:
            nodes.insert(i, nodes[j])
        case 2:
            del nodes[i]
        case _:  # a cycle
            operands = tuple(nodes[j].results[:1]) or nodes[i].operands
            nodes[i] = replace(nodes[i], operands=(*operands, *nodes[i].operands[1:]))
    return replace(g, nodes=tuple(nodes))


def _name(rng: random.Random, g: Graph) -> Graph:
    """One value renamed everywhere, perhaps to a name that is taken or none at all."""
    known = list(g.values())
    if not known:
        return replace(g, name=rng.choice(NAMES))
    old = rng.choice(known)
    new = Value(rng.choice((*NAMES, rng.choice(known).name)), old.type)

    def swap(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(new if v == old else v for v in values)

    nodes = tuple(replace(n, operands=swap(n.operands), results=swap(n.results)) for n in g.nodes)
    consts = {new if v == old else v: c for v, c in g.consts.items()}
    return replace(g, inputs=swap(g.inputs), consts=consts, nodes=nodes, outputs=swap(g.outputs))


def _const(rng: random.Random, g: Graph) -> Graph:
    consts = dict(g.consts)
    if not consts or rng.random() < 0.2:
        value = _any_value(rng, g)
        kind = rng.choice([t for t in TYPES if isinstance(t, TensorType)])
        return replace(g, consts={**consts, value: Const(kind, DigestData(rng.choice(NAMES)))})
    value = rng.choice(list(consts))
    const = consts[value]
    match rng.randint(0, 4):
        case 0:
            del consts[value]
        case 1:
            consts[value] = Const(rng.choice([t for t in TYPES if isinstance(t, TensorType)]), const.data)
        case 2:
            consts[value] = Const(const.type, rng.choice(list(consts.values())).data)
        case 3:
            consts[value] = Const(
                const.type,
                OpData(
                    rng.choice(OPS), (const,) * rng.randint(0, 2), ((rng.choice(KEYS), _attr(rng)),), rng.randint(-1, 2)
                ),
            )
        case _:
            consts[value] = Const(
                const.type, Const.of(np.array([np.nan, -np.nan, 1.0], rng.choice((">f4", "f4", "f2")))).data
            )
    return replace(g, consts=consts)


def _frame(rng: random.Random, g: Graph) -> Graph:
    """Outputs, inputs, symbols, phase, name."""
    match rng.randint(0, 5):
        case 0:
            return replace(g, outputs=(*g.outputs, _any_value(rng, g)))
        case 1:
            return replace(g, inputs=(*g.inputs, _any_value(rng, g)))
        case 2:
            return replace(g, inputs=g.inputs[1:])
        case 3:
            ranges = ((5, 1), (-1, 3), (0, 2**63), (0, 10**5000), (1, 1))
            return replace(g, dims={**g.dims, rng.choice((*g.dims, *NAMES, "inf", "none")): rng.choice(ranges)})
        case 4:
            return replace(g, phase=rng.choice((*PHASES, *NAMES)))
        case _:
            return replace(g, name=rng.choice(NAMES))


DAMAGE: tuple[Damage, ...] = (_one_node, _one_node, _one_node, _order, _name, _const, _frame)


def damaged_graph(rng: random.Random, graph: Graph) -> Graph:
    """``graph`` with one to three injuries; it may still be well formed."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        graph = rng.choice(DAMAGE)(rng, graph)
    return graph
