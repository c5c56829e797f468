"""keep_window becomes the manifest's policy, or the program is refused at the node that stands in the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fretsaw.backends.program.plan import plan
from fretsaw.ir import Attr, Graph, make_node, verify
from fretsaw.ir.cache_policy import WindowPolicy
from fretsaw.ir.errors import LoweringError
from tests.backends.tvm.conftest import Packed
from tests.backends.tvm.test_sparse_attention import options
from tests.passes.sparse.layers import sparse


def windowed(graph: Graph, *changes: dict[str, Attr] | None) -> Graph:
    """A window in each layer with these attributes changed; None: no window."""
    kv = next(v for v in graph.inputs if v.name == "kv")
    attrs: dict[str, Attr] = {"sinks": 4, "window": 100}
    windows = [
        make_node("keep_window", [kv], {**attrs, "layer": i, **change}, ())
        for i, change in enumerate(changes)
        if change is not None
    ]
    made = replace(graph, nodes=(*windows, *graph.nodes))
    verify(made)
    return made


def test_one_window_is_the_policy_and_no_launch(packed: Packed) -> None:
    graph, _ = packed("llama")
    made = plan(windowed(graph, {}, {}), options())
    assert made.policy == WindowPolicy(4, 100, 64)
    assert made.policy.described() == {"name": "window", "sinks": 4, "window": 100}
    assert made.launches == plan(graph, options()).launches and plan(graph, options()).policy is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (({}, {"window": 99}), "one window holds for the whole cache, this layer has another one or none"),
        (({}, None), "one window holds for the whole cache, this layer has another one or none"),
        (({}, {}, {"sinks": 0, "layer": 0}), "one window holds for the whole cache"),
        (({"page": 16}, {"page": 16}), "keep_window drops pages of 16 tokens, the cache has pages of 64"),
    ],
)
def test_windows_that_are_refused(changes: tuple[dict[str, Attr] | None, ...], words: str, packed: Packed) -> None:
    graph, _ = packed("llama")
    with pytest.raises(LoweringError) as refused:
        plan(windowed(graph, *changes), options())
    assert words in refused.value.what


def test_attention_that_counts_slots_is_refused(packed: Packed) -> None:
    graph, _ = packed("gemma3")  # some layers have a window of their own
    with pytest.raises(LoweringError, match="cached_attention counts slots as positions, and keep_window moves slots"):
        plan(windowed(graph, *[{}] * graph.count("kv_append")), options())
    graph, _ = packed("llama")
    with pytest.raises(LoweringError, match="block_attention counts slots as positions"):
        plan(windowed(sparse(graph, method="quest", budget=64, first_dense=0), {}, {}), options())
