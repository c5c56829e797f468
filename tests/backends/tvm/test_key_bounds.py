"""Programs that keep least and greatest keys beside pages: who keeps them, who reads them, and what tokens are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fretsaw.backends.program.dense_steps import dense_twin
from fretsaw.backends.program.kv_storage import KvType, row_bytes
from fretsaw.backends.program.plan import plan
from fretsaw.backends.tvm.build import build
from fretsaw.ir import Graph, Node, ReferenceKvCache, make_node, run
from fretsaw.ir.planes import Plane
from tests.backends.tvm.conftest import Packed
from tests.backends.tvm.paged import PagedRunner, planes_of, sizes_of
from tests.backends.tvm.test_sparse_attention import V3, options
from tests.passes.sparse.layers import sparse

QUEST = {"method": "quest", "budget": 64, "first_dense": 0}


def launches(graph: Graph, twin: bool = False) -> list[str]:
    """Kinds of launches, in order."""
    made = plan(graph, options())
    return [x.spec.name.rsplit("_", 1)[0] for x in (dense_twin(made) if twin else made).launches]


def changed(graph: Graph, op: str, **attrs: bool | str) -> Graph:
    """``graph`` with attributes of one kind of nodes set."""
    nodes = [
        replace(n, attrs=tuple(sorted({**dict(n.attrs), **attrs}.items()))) if n.op == op else n for n in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


def test_scores_of_rows_that_decode_read_what_is_kept(packed: Packed) -> None:
    graph, _ = packed("llama")
    layers = graph.count("kv_append")
    names = launches(sparse(graph, **QUEST))
    assert names.count("keepbounds") == names.count("storedbounds") == layers
    assert "pool_keys" not in names and "bound_scores" not in names
    assert names.index("append") < names.index("keepbounds") < names.index("storedbounds")
    assert [p.name for p in plan(sparse(graph, **QUEST), options()).planes] == ["key_bounds"]
    assert plan(graph, options()).planes == ()


def test_the_dense_entry_keeps_bounds_and_scores_nothing(packed: Packed) -> None:
    graph, _ = packed("llama")
    names = launches(sparse(graph, **QUEST), twin=True)
    assert names.count("keepbounds") == graph.count("kv_append") and "storedbounds" not in names


@pytest.mark.parametrize(
    ("op", "attrs"), [("bound_scores", {"single": False}), ("pool_keys", {"kind": "mean"})], ids=["prompts", "means"]
)
def test_other_bounds_are_computed(op: str, attrs: dict[str, bool | str], packed: Packed) -> None:
    graph, _ = packed("llama")
    names = launches(changed(sparse(graph, **QUEST), op, **attrs))
    layers = graph.count("kv_append")
    assert names.count("pool_keys") == 2 * layers and "keepbounds" not in names
    assert names.count("bound_scores") == layers


def test_two_scores_of_a_layer_share_what_is_kept(packed: Packed) -> None:
    """Scores of another scale over the same least and greatest keys, or over some of their own."""
    graph, _ = packed("llama")
    small = sparse(graph, **QUEST)
    nodes: list[Node] = []
    for node in small.nodes:
        nodes.append(node)
        if node.op == "bound_scores":
            attrs = dict(node.attrs) | {"scale": 0.5}
            nodes.append(make_node(node.op, node.operands, attrs, [f"{node.out.name}.more"], node.loc))
    names = launches(replace(small, nodes=tuple(nodes)))
    layers = graph.count("kv_append")
    assert names.count("keepbounds") == layers and names.count("storedbounds") == 2 * layers


@pytest.mark.parametrize("kv", ["f32", "int8", pytest.param("f16", marks=pytest.mark.exhaustive)])
def test_prompts_by_the_dense_entry_then_decoding_by_lists(kv: KvType, packed: Packed) -> None:
    """Whatever entry read the prompt, tokens are decoded alike; without bounds (NaN here) they would not be. With f32
    they are those of the interpreter."""
    graph, model = packed("llama")
    small = sparse(graph, **QUEST)
    program = build(small, replace(options(), kv=kv))
    layers, heads, *sizes = sizes_of(program, "layers", "kv_heads", "key_size", "value_size")
    assert planes_of(program)[2] == Plane("key_bounds", "f32", (2 * sizes[0],))
    page = 64 * sum(row_bytes(n, kv) for n in sizes) + 2 * sizes[0] * 4  # bytes; bounds are f32
    assert program.memory["kv_bytes_per_token"] == layers * heads * page // 64
    one, two = (PagedRunner(program, V3, sequences=2) for _ in range(2))
    rng = np.random.default_rng(3)
    cache, at = ReferenceKvCache(sum(n.op == "kv_append" for n in graph.nodes), 2), [0, 0]
    for counts in ([200, 130], [100, 62], [1, 1], [1, 1], [1, 0], [1, 1]):
        step = [rng.integers(0, model.config.vocab_size, n).tolist() for n in counts]
        two.use_entry("step_dense" if max(counts) > 1 else "step")
        got = one.step(step)
        assert np.isfinite(got).all() and np.array_equal(got, two.step(step))
        if kv == "f32":
            want = stepped(small, cache, step, at)
            # 1e-4 of the largest logit: the bound of the comparison of dense programs with transformers.
            assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()
        at = [a + n for a, n in zip(at, counts, strict=True)]


def stepped(graph: Graph, cache: ReferenceKvCache, step: Sequence[Sequence[int]], at: Sequence[int]) -> np.ndarray:
    """Logits of a step by the interpreter."""
    cache.begin_step([len(t) for t in step])
    flat = np.concatenate([np.array(t, np.int32) for t in step])
    positions = np.concatenate([np.arange(a, a + len(t)) for a, t in zip(at, step, strict=True)]).astype(np.int32)
    rows = np.arange(len(flat), dtype=np.int32)
    (want,) = run(graph, {"tokens": flat, "positions": positions, "rows": rows, "kv": cache})
    return want
