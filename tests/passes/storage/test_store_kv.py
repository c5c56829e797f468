"""store_kv: golden text, a site per layer with its bytes, what is there already, the numbers of the reference cache."""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.ir import ReferenceKvCache, run
from fretsaw.passes.api import Stored
from fretsaw.passes.storage.store_kv import store_kv
from tests.passes.kit import golden, read

BEFORE = """
graph @g(%kv: handle<kv_cache>, %x: f32[T, 2, 4], %v: f32[T, 2, 6]) -> (%y) {
  phase packed
  dim T in [1, 64]
  kv_append(%kv, %x, %v) {layer = 0}  // layers.0.attn
  %y: f32[T, 2, 6] = cached_attention(%kv, %x) {layer = 0, scale = 1.0, value_size = 6}  // layers.0.attn
}
"""
AFTER = BEFORE.replace("handle<kv_cache>", "handle<kv_cache, int8>")


def test_golden() -> None:
    golden(store_kv, BEFORE, AFTER)
    done = store_kv.run(read(BEFORE))
    assert done.stored == (Stored("layers.0.attn", "f32", "int8", 80, 36),)  # 20 numbers; 20 codes and 4 scales
    assert len(done.hits) == 1 and done.keeps is None


def test_already_there() -> None:
    graph = read(AFTER)
    done = store_kv.run(graph)
    assert done.graph is graph and not done.hits
    assert [(d.reason, d.already) for d in done.declines] == [("the cache is kept as int8 already", True)]


@pytest.mark.parametrize(("name", "bound"), [("f16", 2.0**-9), ("int8", 2.0**-5)])
def test_numbers(name: str, bound: float) -> None:
    """The rewritten graph rounds what it appends: near, and not equal."""
    before = read(BEFORE)
    after = store_kv.configured({"format": name}).run(before).graph
    rng = np.random.default_rng(0)
    feed = {n: rng.standard_normal((5, 2, e)).astype(np.float32) for n, e in (("x", 4), ("v", 6))}
    got = []
    for graph, kept in ((before, "f32"), (after, name)):
        cache = ReferenceKvCache(1, format=kept)
        cache.begin_step([5])
        got.append(run(graph, {**feed, "kv": cache})[0])
    assert 0 < np.abs(got[0] - got[1]).max() < bound * np.abs(got[0]).max()
