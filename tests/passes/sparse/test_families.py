"""Whole models: lists of everything give the dense program's logits, chunks give what a whole prompt gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fretsaw.ir import Graph
from fretsaw.passes.pipeline import run_pipeline
from tests.captured import CapturedFamily
from tests.passes.sparse.layers import PASS, sparse
from tests.passes.test_packed_families import ids_of, packed_logits

FAMILIES = ("llama", "qwen3", "gemma3", "gpt_oss", "gpt_neox")
SEQUENCES = [ids_of(0, 120), ids_of(1, 1), ids_of(2, 64), ids_of(3, 77)]
WHOLE = [[120, 1, 64, 77]]
CHUNKS = [[64, 1, 0, 64], [56, 0, 64, 13]]
EXACT = ("cached_attention", "block_attention")
# Two layers of width 48 whose attention adds up to 120 products in f32, behind them a vocabulary of 320.
BOUND = 48 * 120 * np.finfo(np.float32).eps


@pytest.fixture(scope="module", params=FAMILIES)
def packed(request: pytest.FixtureRequest, captured: Callable[[str], CapturedFamily]) -> tuple[str, Graph]:
    return request.param, run_pipeline(captured(request.param).graph).graph


def distance(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "options",
    [{"method": "dense"}, {"method": "xattention", "threshold": 1}, {"method": "xattention"}, {"method": "infllm_v2"},
     {"method": "minference"}, {"method": "lambda_mask"}, {"method": "mean_pool", "share": "group", "density": 1}],
    ids=lambda o: "-".join(map(str, o.values())),
)  # fmt: skip
def test_what_lists_everything_has_the_dense_logits(packed: tuple[str, Graph], options: dict[str, object]) -> None:
    """Also below ``dense_until``, which the sequences here do not reach."""
    _, graph = packed
    after = sparse(graph, **options)
    assert after.count("block_attention")
    assert distance(packed_logits(after, SEQUENCES, WHOLE), packed_logits(graph, SEQUENCES, WHOLE)) < BOUND


@pytest.mark.parametrize("method", ["xattention", "mean_pool", "dhsa", "hip", "s2"])
def test_chunks_give_what_a_whole_prompt_gives(packed: tuple[str, Graph], method: str) -> None:
    _, graph = packed
    tight = {"xattention": {"threshold": 0}, "mean_pool": {"density": 0}, "dhsa": {"density": 0},
             "hip": {"mask_k": 64, "sink": 0, "window": 0}, "s2": {"local": 1, "stride": 2}}[method]  # fmt: skip
    after = sparse(graph, method=method, dense_until=0, **tight)
    whole = packed_logits(after, SEQUENCES, WHOLE)
    assert distance(packed_logits(after, SEQUENCES, CHUNKS), whole) < BOUND


def test_a_tight_window_is_seen(packed: tuple[str, Graph]) -> None:
    """The bound can fail: a method that leaves something out moves the logits by far more."""
    _, graph = packed
    after = sparse(graph, method="lambda_mask", sink=0, window=4)
    assert distance(packed_logits(after, SEQUENCES, WHOLE), packed_logits(graph, SEQUENCES, WHOLE)) > 10 * BOUND


@pytest.mark.parametrize("name", FAMILIES)
def test_the_pipeline_places_it_after_packing(name: str, captured: Callable[[str], CapturedFamily]) -> None:
    result = run_pipeline(captured(name).graph, extra=[PASS.configured({"method": "mean_pool"})])
    assert result.ledger[-1].name == "sparse_attention" and result.ledger[-1].hit == result.graph.count(EXACT[1])
