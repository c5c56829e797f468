"""Programs of sparse_attention, compiled, against the interpreter: ragged, in chunks, decoding."""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.backends.tvm.build import build
from fretsaw.ir import ReferenceKvCache, run
from tests.backends.tvm.conftest import Packed
from tests.backends.tvm.paged import PagedRunner
from tests.backends.tvm.test_sparse_attention import V3, options, steps
from tests.passes.sparse.layers import sparse

# Settings that leave something out of sequences of a few blocks.
METHODS: dict[str, dict[str, object]] = {
    "lambda_mask": {"sink": 3, "window": 40, "decode": True}, "s2": {"local": 1, "stride": 3, "dense_until": 0},
    "xattention": {"threshold": 0.5, "share": "group", "dense_until": 0}, "prism": {"p": 0.4, "dense_until": 0},
    "tri_shape": {"sink": 2, "window": 30, "last": 5, "dense_until": 0},
    "mean_pool": {"density": 0.3, "dense_until": 0},
    "minference": {"vertical": 31, "slash": 100, "dense_until": 0},
    "flex_prefill": {"gamma": 0.3, "min_budget": 64, "dense_until": 0}, "hip": {"mask_k": 64, "window": 0,
    "dense_until": 0}, "quest": {"budget": 64, "first_dense": 0}, "moa": {"alpha": 64, "beta": 0, "decode": True},
    "infllm": {"blocks": 1, "init": 64, "window": 64, "positions": "turned", "dense_until": 0},
    "infllm_v2": {"blocks": 2, "window": 0, "dense_until": 0, "decode": True},
}  # fmt: skip


OFTEN = (
    "lambda_mask",
    "xattention",
    "minference",
    "quest",
)  # the others in `make exhaustive`: a program takes seconds to compile


@pytest.mark.parametrize(
    "method", [m if m in OFTEN else pytest.param(m, marks=pytest.mark.exhaustive) for m in METHODS]
)
def test_compiled_programs_attend_as_the_interpreter_does(method: str, packed: Packed) -> None:
    graph, model = packed("llama")
    small = sparse(graph, method=method, **METHODS[method])
    runner = PagedRunner(build(small, options()), V3, sequences=2)
    layers = sum(n.op == "kv_append" for n in graph.nodes)
    kv, full, at, apart = ReferenceKvCache(layers, 2), ReferenceKvCache(layers, 2), [0, 0], 0.0
    for tokens in steps(model.config.vocab_size):
        counts = [len(t) for t in tokens]
        for cache in (kv, full):
            cache.begin_step(counts)
        positions = np.concatenate([np.arange(a, a + n) for a, n in zip(at, counts, strict=True)]).astype(np.int32)
        flat = np.concatenate(tokens).astype(np.int32)
        feed = {"tokens": flat, "positions": positions, "rows": np.arange(len(flat), dtype=np.int32)}
        (want,), (dense,) = run(small, {**feed, "kv": kv}), run(graph, {**feed, "kv": full})
        # 1e-4 of the largest logit: the bound of the comparison of dense programs with transformers.
        assert np.abs(runner.step(tokens) - want).max() < 1e-4 * np.abs(want).max()
        apart = max(apart, float(np.abs(dense - want).max() / np.abs(want).max()))
        at = [a + n for a, n in zip(at, counts, strict=True)]
    assert apart > 1e-3  # what is left out shows
