"""Steps that the second entry of a sparse program runs: which they are, and that they give the same bits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fretsaw.backends.program.dense_steps import dense_steps, full_steps
from fretsaw.backends.tvm.build import build
from fretsaw.ir.kv import BLOCK
from fretsaw.ir.traits import EVERYWHERE, Full
from tests.backends.tvm.conftest import Packed
from tests.backends.tvm.paged import PagedRunner
from tests.backends.tvm.test_sparse_attention import V3, options
from tests.passes.sparse.layers import causal, layer_graph, run_steps, sparse, tokens

# Small budgets of every method that needs no weights, and the rows in which it leaves nothing out.
SHORT = {"dense_until": 128}
METHODS: list[tuple[str, dict[str, object], Full]] = [
    ("dense", {}, Full(EVERYWHERE, True, True)),
    ("lambda_mask", {"sink": 3, "window": 40}, Full(40, False, True)),
    ("lambda_mask", {"sink": 3, "window": 40, "decode": True}, Full(40, False, False)),
    ("tri_shape", {"sink": 2, "window": 30, "last": 5, **SHORT}, Full(128, False, True)),
    ("s2", {"local": 1, "stride": 3, **SHORT}, Full(128, False, True)),
    ("xattention", {"threshold": 0.3, "share": "group", **SHORT}, Full(128, False, True)),
    ("xattention", {"threshold": 0.3, "dense_until": 0}, Full(64, False, True)),
    ("prism", {"p": 0.2, **SHORT}, Full(128, False, True)),
    ("mean_pool", {"density": 0.1, **SHORT}, Full(128, False, True)),
    ("minference", {"vertical": 8, "slash": 8, **SHORT}, Full(128, False, True)),
    ("minference", {"vertical": 8, "slash": 8, "columns": "blocks", **SHORT}, Full(128, False, True)),
    ("flex_prefill", {"gamma": 0.1, "min_budget": 64, **SHORT}, Full(128, False, True)),
    ("flex_prefill", {"gamma": 0.1, "min_budget": 64, "tau": 0.5, **SHORT}, Full(128, False, True)),
    ("dhsa", {"density": 0.1, **SHORT}, Full(128, False, True)),
    ("infllm_v2", {"blocks": 1, "window": 0, **SHORT}, Full(128, False, True)),
    ("infllm_v2", {"blocks": 1, "window": 0, "decode": True, **SHORT}, Full(128, False, False)),
    ("moa", {"alpha": 64, "beta": 0, **SHORT}, Full(128, False, True)),
    ("hip", {"mask_k": 64, "sink": 0, "window": 0, **SHORT}, Full(128, False, True)),
    ("quest", {"budget": 64, "first_dense": 0}, Full(64, True, False)),
    ("quest", {"budget": 150, "first_dense": 0}, Full(128, True, False)),
    ("infllm", {**SHORT}, Full(99 * BLOCK, False, True)),  # 2 + 65 + 32 blocks
    ("infllm", {"window": 64, "positions": "turned", **SHORT}, Full(128, False, True)),
    ("infllm", {"window": 100, "positions": "turned", **SHORT}, Full(192, False, True)),
    ("longheads", {**SHORT}, Full(64 * BLOCK, False, True)),
    ("hyper_attention", {**SHORT}, Full(8 * BLOCK, False, True)),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(METHODS)), ids=lambda i: f"{METHODS[i][0]}-{i}")
def test_the_rows_that_are_said_to_be_full_are(case: int) -> None:
    method, settings, want = METHODS[case]
    graph = sparse(layer_graph(), method=method, **settings)
    found = full_steps(graph)
    assert found == want
    for chunks in ([[330, 200]], [[128, 64], [202, 136]]):
        ran = run_steps(graph, [tokens(331, 1), tokens(200, 2)], [[*c] for c in chunks])
        for mask in ran.masks:
            rows = len(mask) if found.prompts else min(found.until // BLOCK, len(mask))
            assert np.array_equal(mask[:rows], np.repeat(causal(len(mask))[:rows, None], mask.shape[1], axis=1))


def test_dense_programs_have_no_second_entry() -> None:
    assert dense_steps(layer_graph()) == {}


def test_a_layer_of_its_own_decides_for_all() -> None:
    half = sparse(layer_graph(layers=2), method="mean_pool", layers=(0,), density=0.1, dense_until=256)
    both = sparse(half, method="xattention", layers=(1,), threshold=0.3, dense_until=128)
    assert full_steps(half) == Full(256, False, True)
    assert full_steps(both) == Full(128, False, True)


@pytest.mark.parametrize(
    ("method", "given"),
    [("xattention", {"threshold": 0.3}), ("minference", {"vertical": 31, "slash": 100})],
)
def test_the_second_entry_gives_the_same_bits_without_choosing(
    method: str, given: dict[str, object], packed: Packed
) -> None:
    graph, model = packed("llama")
    program = build(sparse(graph, method=method, dense_until=192, **given), options())
    assert program.program["dense"] == {"entry": "step_dense", "until": 192, "prompts": False, "single": True}
    sparse_run, dense_run, mixed_run = (PagedRunner(program, V3, sequences=2) for _ in range(3))
    dense_run.use_entry("step_dense")
    rng = np.random.default_rng(3)
    for ends in pairwise([(0, 0), (128, 64), (192, 65), (193, 190)]):
        step = [rng.integers(0, model.config.vocab_size, b - a).tolist() for a, b in zip(*ends, strict=True)]
        mixed_run.use_entry("step" if len(step[1]) > 1 else "step_dense")
        want = sparse_run.step(step)
        if max(ends[1]) <= 192:
            assert np.array_equal(dense_run.step(step), want)
        assert np.array_equal(mixed_run.step(step), want)
