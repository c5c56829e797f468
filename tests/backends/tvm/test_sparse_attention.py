"""Programs with sparse attention: full lists give the dense program's bits, short ones what the interpreter does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fretsaw.backends.tvm.build import build
from fretsaw.backends.tvm.kv_storage import KvType
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.ir import Graph, Node, ReferenceKvCache, Value, run
from fretsaw.ir.builder import make_node
from fretsaw.ir.errors import LoweringError
from fretsaw.ir.op import Attr
from tests.backends.tvm.conftest import Packed
from tests.backends.tvm.paged import PagedRunner
from tests.storage import stored

V3 = "llvm-x86-64-v3"
ENDS = [(130, 5), (131, 100), (132, 101), (300, 300)]  # of both sequences after each step: whole, decode, mixed, long


class Site:
    """Nodes that take the place of one attention."""

    def __init__(self, node: Node) -> None:
        self.node, self.nodes = node, list[Node]()
        self.attrs = {name: node.attr(name) for name in ("layer", "scale", "value_size", "softcap")}

    def emit(self, op: str, *operands: Value, **attrs: Attr) -> tuple[Value, ...]:
        """Add a node; its results."""
        name = f"{self.node.out.name}.{op}.{len(self.nodes)}"
        self.nodes.append(make_node(op, operands, attrs, [name], self.node.loc))
        return self.nodes[-1].results

    def done(self) -> list[Node]:
        """All nodes, the last one's first result named like the attention's."""
        last = self.nodes[-1]
        named = make_node(last.op, last.operands, dict(last.attrs), [self.node.out.name], last.loc)
        return [*self.nodes[:-1], named]


def rewritten(graph: Graph, rule: Callable[[Site], None]) -> Graph:
    """``graph`` with every attention without a window replaced by what ``rule`` emits, the last node in its place."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op != "cached_attention" or node.attr("window"):
            nodes.append(node)
            continue
        site = Site(node)
        rule(site)
        nodes += site.done()
    return replace(graph, nodes=tuple(nodes))


def full(groups: int) -> Callable[[Site], None]:
    """All blocks, listed."""

    def rule(site: Site) -> None:
        node = site.node
        (mask,) = site.emit("causal_blocks", node["kv"], groups=groups)
        idx, cnt = site.emit("compact_blocks", mask)
        sinks = [] if node.get("sinks") is None else [node["sinks"]]
        site.emit("block_attention", node["kv"], node["q"], idx, cnt, *sinks, **site.attrs)

    return rule


def parts(site: Site) -> None:
    """The newest block beside the first few tokens: their numbers are those of blocks."""
    node = site.node
    kv, q = node["kv"], node["q"]
    near = site.emit("compact_blocks", *site.emit("forced_blocks", kv, groups=2, local=1))
    early = site.emit("compact_blocks", *site.emit("causal_blocks", kv, groups=2))
    first = site.emit("block_attention", kv, q, *near, lse=True, **site.attrs)
    second = site.emit("gather_attention", kv, q, *early, **site.attrs)
    site.emit("merge_attention", *first, *second)


def options(page: int = 64) -> TvmOptions:
    return TvmOptions(cpus=("x86-64-v3",), page_tokens=page)


def steps(vocabulary: int) -> list[list[list[int]]]:
    """Tokens of two sequences, step by step."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (2, ENDS[-1][0]))
    starts = [(0, 0), *ENDS[:-1]]
    return [[ids[i, a[i] : b[i]].tolist() for i in range(2)] for a, b in zip(starts, ENDS, strict=True)]


@pytest.mark.parametrize(
    ("name", "groups", "kv"),
    [
        ("llama", 2, "f32"),
        pytest.param("llama", 4, "int8", marks=pytest.mark.exhaustive),
        pytest.param("gpt_oss", 1, "f16", marks=pytest.mark.exhaustive),
    ],
)
def test_full_lists_give_the_bits_of_the_dense_program(name: str, groups: int, kv: KvType, packed: Packed) -> None:
    graph, model = packed(name)
    changed = rewritten(graph, full(groups))
    assert changed.count("block_attention") > 0
    dense, sparse = (PagedRunner(build(stored(g, kv=kv), options()), V3, sequences=2) for g in (graph, changed))
    for tokens in steps(model.config.vocab_size):
        np.testing.assert_array_equal(sparse.step(tokens), dense.step(tokens))


def test_parts_of_the_cache_agree_with_the_interpreter(packed: Packed) -> None:
    graph, model = packed("llama")
    small = rewritten(graph, parts)
    runner, dense = (PagedRunner(build(g, options()), V3, sequences=2) for g in (small, graph))
    layers = sum(n.op == "kv_append" for n in graph.nodes)
    kv, at, apart = ReferenceKvCache(layers, 2), [0, 0], 0.0
    for tokens in steps(model.config.vocab_size):
        counts = [len(t) for t in tokens]
        kv.begin_step(counts)
        positions = np.concatenate([np.arange(a, a + n) for a, n in zip(at, counts, strict=True)]).astype(np.int32)
        flat = np.concatenate(tokens).astype(np.int32)
        inputs = {"tokens": flat, "positions": positions, "rows": np.arange(len(flat), dtype=np.int32), "kv": kv}
        (want,) = run(small, inputs)
        got = runner.step(tokens)
        # 1e-4 of the largest logit: the bound of the comparison of dense programs with transformers.
        assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()
        apart = max(apart, float(np.abs(dense.step(tokens) - want).max() / np.abs(want).max()))
        at = [a + n for a, n in zip(at, counts, strict=True)]
    assert apart > 1e-2  # what is left out shows


def test_pages_that_are_no_blocks_are_refused(packed: Packed) -> None:
    with pytest.raises(LoweringError, match="64"):
        build(rewritten(packed("llama")[0], full(2)), options(page=32))
