"""Analyses against oracles that try everything, on random graphs."""

from __future__ import annotations

import gc
import random
import weakref
from dataclasses import dataclass
from itertools import combinations, product

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.ir import Graph, GraphBuilder, Node, TensorType, Value, get_op, parse
from fretsaw.ir.effects import reads, writes
from fretsaw.ir.types import ITEMSIZE
from fretsaw.ir.views import data_flow
from fretsaw.passes.kit.analysis import analysis, dominance, liveness, regions, uses
from fretsaw.tools.fuzz.generate import random_graph

SIZES = dict.fromkeys(("B", "S", "T", "n_1", "Batch", "QB", "KB"), 3)


def dag(rng: random.Random, size: int) -> Graph:
    """Elementwise nodes on f32[2]; ``neg`` and ``add`` are the kinds that predicates choose by."""
    build = GraphBuilder("g")
    values = [build.input("x", TensorType("f32", (2,)))]
    for _ in range(size):
        op = rng.choice(("neg", "add", "mul", "abs"))
        operands = [rng.choice(values[-5:]) for _ in get_op(op).slots]
        values.append(build.emit(op, *operands))
    return build.finish(rng.sample(values, min(3, len(values))))


dags = st.builds(dag, st.randoms(use_true_random=False), st.integers(0, 10))
typed = st.randoms(use_true_random=False).map(lambda rng: random_graph(rng, size=10, odd=False))


def flow(graph: Graph) -> list[tuple[int, int]]:
    """Edges of data and of the order on handles, written down from the definition."""
    out = []
    for j, node in enumerate(graph.nodes):
        for i, earlier in enumerate(graph.nodes[:j]):
            if _conflict(earlier, node) or set(earlier.results) & set(node.operands):
                out.append((i, j))
    return out


def _conflict(a: Node, b: Node) -> bool:
    """One writes what the other reads or writes."""
    pairs = [*product(writes(a), [*reads(b), *writes(b)]), *product(reads(a), writes(b))]
    return any(x.overlaps(y) for x, y in pairs)


@settings(max_examples=60, deadline=None)
@given(graph=st.one_of(dags, typed))
def test_dominance_against_cutting_every_node(graph: Graph) -> None:
    found = dominance(graph)
    count = len(graph.nodes)
    made = {v for n in graph.nodes for v in n.results}
    cut: nx.DiGraph[object] = nx.DiGraph()
    cut.add_nodes_from([*range(count), "start", "end"])
    cut.add_edges_from(flow(graph))
    for i, node in enumerate(graph.nodes):
        if not node.operands or set(node.operands) - made:
            cut.add_edge("start", i)
        if get_op(node.op).writes or set(node.results) & set(graph.outputs):
            cut.add_edge(i, "end")
    for a in range(count):
        without = cut.copy()
        without.remove_node(a)
        reached, needed = nx.descendants(without, "start"), nx.ancestors(without, "end")
        for b in range(count):
            assert found.dominates(a, b) == (a == b or b not in reached)
            if b in nx.ancestors(cut, "end"):  # dead nodes have no paths to speak of
                assert found.post_dominates(a, b) == (a == b or b not in needed)


def test_dominance_by_hand() -> None:
    graph = parse(
        """graph @g(%x: f32[2]) -> (%d) {
  %a: f32[2] = neg(%x)
  %b: f32[2] = exp(%a)
  %c: f32[2] = abs(%a)
  %d: f32[2] = add(%b, %c)
  %dead: f32[2] = neg(%b)
}"""
    )
    found = dominance(graph)
    assert (dict(found.above), dict(found.below)) == ({0: -1, 1: 0, 2: 0, 3: 0, 4: 1}, {0: 3, 1: 3, 2: 3, 3: -2})
    assert found.region(3) == {0, 1, 2, 3} and found.region(1) == {1}
    assert not found.dominates(1, 3) and found.post_dominates(3, 0) and not found.post_dominates(4, 1)


@settings(max_examples=60, deadline=None)
@given(graph=dags, seed=st.integers(0, 9), kinds=st.sets(st.sampled_from(["neg", "add", "mul", "abs"])))
def test_regions_against_every_subset(graph: Graph, seed: int, kinds: set[str]) -> None:
    if seed >= len(graph.nodes):
        return
    found = regions(graph)
    region = found.around(seed, lambda n: n.op in kinds)
    edges = nx.DiGraph(flow(graph))
    edges.add_nodes_from(range(len(graph.nodes)))
    wanted = {i for i, n in enumerate(graph.nodes) if n.op in kinds} | {seed}
    hanging = nx.node_connected_component(edges.subgraph(wanted).to_undirected(), seed)
    closure = nx.transitive_closure_dag(edges)

    def convex(inside: set[int]) -> bool:
        outside = set(edges) - inside
        return not any(closure.pred[x].keys() & inside and closure.succ[x].keys() & inside for x in outside)

    best = max(len(s) + 1 for r in range(len(hanging)) for s in combinations(hanging - {seed}, r) if convex({seed, *s}))
    assert seed in region and region <= hanging and convex(set(region)) and len(region) == best
    assert found.is_convex(set(region)) and found.around(seed, lambda n: n.op in kinds) == region


def test_growing_by_neighbours_would_stop_too_early() -> None:
    """From b alone, adding c leaves the foreign path b -> mul -> d outside only while d is outside."""
    graph = parse(
        """graph @g(%x: f32[2]) -> (%e) {
  %b: f32[2] = neg(%x)
  %m: f32[2] = mul(%b, %b)
  %c: f32[2] = neg(%b)
  %d: f32[2] = add(%c, %m)
  %e: f32[2] = neg(%c)
}"""
    )
    found = regions(graph)
    assert found.around(2, lambda n: n.op != "mul") in ({0, 2, 4}, {2, 3, 4})
    assert found.around(0, lambda n: n.op != "mul") == {0, 2, 4}
    assert not found.is_convex({0, 2, 3, 4}) and not found.is_convex({0, 3})


@settings(max_examples=60, deadline=None)
@given(graph=st.one_of(dags, typed))
def test_liveness_against_its_definition(graph: Graph) -> None:
    found = liveness(graph)
    profile = found.profile(SIZES)
    for step in range(len(graph.nodes)):
        made = [*graph.inputs, *(v for n in graph.nodes[: step + 1] for v in n.results)]
        later = {v for n in graph.nodes[step + 1 :] for v in n.operands} | set(graph.outputs)
        here = {*graph.nodes[step].operands, *graph.nodes[step].results}
        want = {v for v in made if (v in later or v in here) and isinstance(v.type, TensorType)}
        if step == 0:  # unread inputs are given all the same, and dropped after the first step
            want |= {v for v in graph.inputs if isinstance(v.type, TensorType)}
        live = set(found.live(step)) | (want - set(found.live(step)) if step == 0 else set())
        assert live == want
        assert profile[step] == sum(v.tensor.nbytes(SIZES) for v in want)
    if profile:
        assert found.peak(SIZES) == (max(profile), profile.index(max(profile)))


def test_liveness_by_hand() -> None:
    graph = parse(
        """graph @g(%x: f32[B, 4]) -> (%c) {
  dim B in [1, 8]
  const %w: f32[1, 4]
  %a: f32[B, 4] = add(%x, %w)
  %b: f32[B, 1] = sum(%a) {axis = 1, keepdims = true}
  %c: f32[B, 4] = mul(%a, %b)
}"""
    )
    unit = ITEMSIZE["f32"] * 10
    assert liveness(graph).profile({"B": 10}) == (8 * unit, 5 * unit, 9 * unit)
    assert liveness(graph).peak({"B": 10}) == (9 * unit, 2)
    assert liveness(parse("graph @e() -> () {\n}")).peak({}) == (0, -1)


@settings(max_examples=60, deadline=None)
@given(graph=typed)
def test_uses_against_its_definition(graph: Graph) -> None:
    found = uses(graph)
    for value in graph.values():
        want: list[tuple[int, int, tuple[int, ...]]] = []
        todo: list[tuple[Value, tuple[int, ...]]] = [(value, ())]
        while todo:
            at, through = todo.pop()
            for j, node in enumerate(graph.nodes):
                for i, operand in enumerate(node.operands):
                    if operand == at and get_op(node.op).view:
                        todo.append((node.out, (*through, j)))
                    elif operand == at:
                        want.append((j, i, through))
        got = [
            (graph.position(r.use.node), r.use.index, tuple(map(graph.position, r.through))) for r in found.reads(value)
        ]
        assert sorted(got) == sorted(want) and [g[0] for g in got] == sorted(g[0] for g in got)


def test_uses_by_hand() -> None:
    graph = parse(
        """graph @g(%x: f32[2, 3]) -> (%t) {
  %a: f32[2, 3] = neg(%x)
  %r: f32[6] = reshape(%a) {shape = [6]}
  %t: f32[3, 2] = transpose(%a) {perm = [1, 0]}
  %s: f32[3] = slice(%r) {axis = 0, end = 3, start = 0}
  %e: f32[3] = exp(%s)
}"""
    )
    found = uses(graph)
    a, r, s = (graph.nodes[i].out for i in (0, 1, 3))
    assert [(x.use.node.op, [n.op for n in x.through]) for x in found.reads(a)] == [("exp", ["reshape", "slice"])]
    assert found.root(s) == a and found.root(a) == a and found.observed == {a, graph.nodes[2].out}
    assert found.sole_read(a) is None and found.sole_read(r) is not None


def test_computed_once_and_freed_with_the_graph() -> None:
    runs = []

    @dataclass(frozen=True)
    class Size:
        nodes: int

    @analysis
    def size(graph: Graph) -> Size:
        runs.append(1)
        return Size(len(graph.nodes))

    graph = parse("graph @g(%x: f32[2]) -> (%y) {\n  %y: f32[2] = neg(%x)\n}")
    assert size(graph) is size(graph) and len(runs) == 1
    for fn in (uses, dominance, liveness, regions):
        assert fn(graph) is fn(graph)
    gone = weakref.ref(graph)
    del graph
    gc.collect()
    assert gone() is None, "an analysis keeps its graph alive"
    again = parse("graph @g() -> () {\n}")
    assert size(again).nodes == 0  # whatever identity it got

    @analysis
    def wrong(graph: Graph) -> int:
        return 1

    with pytest.raises(TypeError, match="analysis wrong must return a frozen dataclass, gave int"):
        wrong(again)


def test_the_view_has_the_flow() -> None:
    graph = random_graph(random.Random(5), size=30)
    edges = set(data_flow(graph).edges)
    assert edges <= set(flow(graph))
    assert nx.transitive_closure(nx.DiGraph(flow(graph))).edges == nx.transitive_closure(nx.DiGraph(edges)).edges
