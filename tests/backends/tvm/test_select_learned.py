"""A whole program of methods with gates, hashes, representatives or a switch, one a layer, against the interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fretsaw.backends.tvm.build import build
from fretsaw.frontend.capture import capture
from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.ir import Graph, ReferenceKvCache, run
from fretsaw.passes.pipeline import run_pipeline
from tests import families
from tests.backends.tvm.paged import PagedRunner
from tests.backends.tvm.test_sparse_attention import V3, options, steps
from tests.passes.sparse.layers import sparse

HEADS, KV_HEADS, SIZE = 4, 2, 20
# Layer by layer; settings that leave something out of sequences of a few blocks.
METHODS: dict[str, dict[str, object]] = {
    "hyper_attention": {"blocks": 1, "sampled": 1}, "seer_attention": {"threshold": 0.3, "tail": False},
    "infllm": {"blocks": 1, "init": 0, "window": 40}, "longheads": {"blocks": 4},
    "flex_prefill": {"gamma": 0.3, "tau": 0.6, "min_budget": 64},
}  # fmt: skip
OPS = {
    "gate_queries", "gate_keys", "hash_scores", "sampled_blocks", "earlier_blocks", "representative_keys", "chunk_keys",
    "flex_switch",
}  # fmt: skip


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    folder = tmp_path_factory.mktemp("five") / "five"
    families.llama(num_hidden_layers=len(METHODS), head_dim=SIZE).save_pretrained(folder)
    return run_pipeline(capture(load_checkpoint(folder))).graph


def gate(folder: Path, layer: int) -> str:
    rng, base = np.random.default_rng(3), f"model.layers.{layer}.self_attn.attn_gate.mask_linear_"
    shapes = {"q": (HEADS, SIZE, SIZE), "k": (KV_HEADS, 3 * SIZE, SIZE)}
    path = folder / "gate.safetensors"
    save_file({f"{base}{n}.weight": rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}, path)
    return str(path)


def test_the_program_chooses_what_the_interpreter_chooses(graph: Graph, tmp_path: Path) -> None:
    """Long prompts of two sequences at once, then a token of one beside a chunk of the other."""
    small = graph
    for layer, (method, settings) in enumerate(METHODS.items()):
        extra = {"gate": gate(tmp_path, layer)} if method == "seer_attention" else {}
        small = sparse(small, method=method, dense_until=0, layers=(layer,), **settings, **extra)
    assert small.count("cached_attention") == 0 and {n.op for n in small.nodes} >= OPS
    runner = PagedRunner(build(small, options()), V3, sequences=2)
    kv, full, at, apart = (*(ReferenceKvCache(len(METHODS), 2) for _ in range(2)), [0, 0], 0.0)
    for tokens in steps(families.VOCAB):
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
