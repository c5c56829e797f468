"""Programs that keep least and greatest keys beside pages: who keeps them, who reads them, and what tokens are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fretsaw.backends.tvm.build import build
from fretsaw.backends.tvm.dense_steps import dense_twin
from fretsaw.backends.tvm.kv_storage import KvType, row_bytes
from fretsaw.backends.tvm.plan import plan
from fretsaw.ir import Graph, Node, ReferenceKvCache, make_node, run
from tests.backends.tvm.conftest import Packed
from tests.backends.tvm.paged import PagedRunner
from tests.backends.tvm.test_sparse_attention import V3, options
from tests.passes.sparse.layers import sparse
from tests.storage import stored

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
    assert plan(sparse(graph, **QUEST), options()).reads("key_bounds")
    assert not plan(graph, options()).reads("key_bounds")


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
    """Whatever entry read the prompt, tokens are decoded alike; without bounds (NaN here) they would not be. They
    are those of the interpreter, whatever the format."""
    graph, model = packed("llama")
    small = sparse(graph, **QUEST)
    small = stored(small, kv=kv)
    program = build(small, options())
    assert program.kv["key_bounds"] is True
    sizes = [int(program.kv[name]) for name in ("key_size", "value_size")]
    bounds = 2 * sizes[0] * 4 // 64
    rows = int(program.kv["layers"]) * int(program.kv["kv_heads"])
    assert program.memory["kv_bytes_per_token"] == rows * (sum(row_bytes(n, kv) for n in sizes) + bounds)
    one, two = (PagedRunner(program, V3, sequences=2) for _ in range(2))
    rng = np.random.default_rng(3)
    cache, at = ReferenceKvCache(graph.count("kv_append"), 2, kv), [0, 0]
    for counts in ([200, 130], [100, 62], [1, 1], [1, 1], [1, 0], [1, 1]):
        step = [rng.integers(0, model.config.vocab_size, n).tolist() for n in counts]
        two.use_entry("step_dense" if max(counts) > 1 else "step")
        got = one.step(step)
        assert np.isfinite(got).all() and np.array_equal(got, two.step(step))
        want = stepped(small, cache, step, at)
        # 1e-4 of the largest logit: the bound of the comparison of dense programs with transformers. A rounding of f32
        # may turn into a step of int8 in a few keys.
        assert np.abs(got - want).max() < (1e-4 if kv == "f32" else 4e-3) * np.abs(want).max()
        at = [a + n for a, n in zip(at, counts, strict=True)]


def stepped(graph: Graph, cache: ReferenceKvCache, step: Sequence[Sequence[int]], at: Sequence[int]) -> np.ndarray:
    """Logits of a step by the interpreter."""
    cache.begin_step([len(t) for t in step])
    flat = np.concatenate([np.array(t, np.int32) for t in step])
    positions = np.concatenate([np.arange(a, a + len(t)) for a, t in zip(at, step, strict=True)]).astype(np.int32)
    rows = np.arange(len(flat), dtype=np.int32)
    (want,) = run(graph, {"tokens": flat, "positions": positions, "rows": rows, "kv": cache})
    return want
