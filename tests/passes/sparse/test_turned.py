"""InfLLM with its own positions: distant blocks are read at one distance, near ones where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fretsaw.ir import Graph
from fretsaw.ir.errors import FretsawError
from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.calibrate.measure import measure
from fretsaw.passes.sparse.calibrate.report import read_lists, token_lists
from fretsaw.passes.sparse.describe import describe_heads
from tests.passes.sparse.layers import SCALE, SIZE, Tokens, find, layer_graph, run_steps, sparse, tokens
from tests.passes.sparse.test_columns import ran_lists
from tests.turning import turned

Array = np.ndarray
SETTING = {"blocks": 2, "init": 60, "window": 70, "positions": "turned", "dense_until": 0}
NEAR = 3  # blocks that hold the last 70 keys of every row of a block


def frequencies(graph: Graph) -> Array:
    (found,) = {n["inv_freq"] for n in find(graph, "rope")}
    return np.asarray(graph.consts[found].load(), np.float64)


def weights(graph: Graph, t: Tokens, chosen: Array) -> Array:
    """Softmax of every row and head over near keys at their distance and chosen far ones at 70, [S, H, S]."""
    freq, count = frequencies(graph), len(t.q)
    at = np.arange(count)
    far = chosen & ~(at[:, None] // BLOCK - at[None] // BLOCK < NEAR)
    k = np.repeat(t.k, 2, axis=1)
    whole = turned(t.q, at[:, None, None] * freq), turned(k, at[:, None, None] * freq)
    same = turned(t.q, np.full((count, 1, 1), 70.0) * freq), k
    true, moved = (np.einsum("she,che->shc", a, b) * SCALE for a, b in (whole, same))
    logits = np.where(far[:, None], moved, true)
    seen = np.tri(count, dtype=bool) & ((at[:, None] // BLOCK - at[None] // BLOCK < NEAR) | far)
    e = np.where(seen[:, None], np.exp(logits - logits.max()), 0)
    out: Array = e / e.sum(axis=2, keepdims=True)
    return out


def chosen_keys(graph: Graph, t: Tokens) -> Array:
    """Keys of the blocks that the layer's one list holds, near ones included, bool[S, S]."""
    _, held = ran_lists(graph, t)
    (listed,) = find(graph, "block_tokens")
    blocks = np.asarray(held[listed["far"]])[:, 0]
    n = -(-len(t.q) // BLOCK)
    return np.repeat(np.repeat(blocks[:n, :n], BLOCK, 0), BLOCK, 1)[: len(t.q), : len(t.q)]


@pytest.mark.parametrize("count", [640, 601])
def test_distant_blocks_are_read_at_one_distance(count: int) -> None:
    graph, t = sparse(layer_graph(), method="infllm", **SETTING), tokens(count, 4)
    want = np.einsum("shc,che->she", weights(graph, t, chosen_keys(graph, t)), np.repeat(t.v, 2, axis=1))
    got = run_steps(graph, [t], [[count]]).out[0]
    bound = 16 * SIZE * np.finfo(np.float32).eps * np.abs(t.v).max()
    # The model's own rotary embedding has angles in f32, which are off by eps / 2 of up to 640.
    assert np.abs(got - want).max() <= bound + 640 * np.finfo(np.float32).eps * SIZE
    true = run_steps(sparse(layer_graph(), method="infllm", **{**SETTING, "positions": "kept"}), [t], [[count]]).out[0]
    assert np.abs(got[: NEAR * BLOCK] - true[: NEAR * BLOCK]).max() <= bound  # nothing is far there
    assert np.abs(got - true).max() > 0.01


def test_a_window_for_everything_is_dense() -> None:
    graph = sparse(layer_graph(), method="infllm", **{**SETTING, "window": 330})
    counts = [330, 64, 1, 200]
    sequences = [tokens(n, seed) for seed, n in enumerate(counts)]
    got, want = (run_steps(g, sequences, [counts]).out for g in (graph, layer_graph()))
    assert all(np.abs(a - b).max() < 1e-6 for a, b in zip(got, want, strict=True))


def test_what_was_read_before_stays_where_it_is() -> None:
    """A second prompt of a conversation reads the first one's blocks at their distance: only its own are far."""
    graph, t = sparse(layer_graph(), method="infllm", **SETTING), tokens(700, 6)
    whole, parts = (run_steps(graph, [t], steps).out[0] for steps in ([[700]], [[640], [60]]))
    dense = run_steps(layer_graph(), [t], [[640], [60]]).out[0]
    assert np.abs(parts[640:] - dense[640:]).max() < 1e-5 < np.abs(whole[640:] - dense[640:]).max()


def test_evidence_of_turned_positions() -> None:
    graph, t = sparse(layer_graph(), method="infllm", **SETTING), tokens(640, 3)
    layer, held = ran_lists(graph, t)
    (node,) = find(graph, "block_attention")
    way = read_lists(node, held.__getitem__, layer.heads, token_lists(graph)[0])
    found = measure(layer, [way]).losses[0]
    w = weights(graph, t, chosen_keys(graph, t))
    logits = np.einsum("hse,hce->shc", layer.q, np.repeat(layer.k, 2, axis=0)) * SCALE
    e = np.where(np.tri(640, dtype=bool)[:, None], np.exp(logits - logits.max()), 0)
    p = e / e.sum(axis=2, keepdims=True)
    for h, loss in enumerate(found):
        v = t.v[:, h // 2]
        dense, mine = p[:, h] @ v, w[:, h] @ v
        error = np.sqrt(np.square(dense - mine).sum() / np.square(dense).sum())
        assert loss.error == pytest.approx(error, rel=1e-3) and loss.error <= loss.bound
        reach = np.sqrt(np.square(v).sum(axis=1)).max()
        limit = np.abs(p[:, h] - w[:, h]).sum(axis=1) * reach
        assert loss.bound == pytest.approx(np.sqrt(np.square(limit).sum() / np.square(dense).sum()), rel=1e-3)
        assert loss.mass == pytest.approx(np.where(w[:, h] > 0, p[:, h], 0).sum(axis=1).mean(), abs=1e-4)


def test_where_positions_cannot_be_turned(tmp_path: Path) -> None:
    with pytest.raises(FretsawError, match="before a rotary embedding, and they come from none"):
        sparse(layer_graph(rope=""), method="infllm", **SETTING)
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[default]\nmethod = "mean_pool"\n[[head]]\nlayer = 0\nheads = [1]\nmethod = "infllm"\npositions = "turned"\n'
    )
    with pytest.raises(FretsawError, match="infllm turns positions for a whole layer, and another method has heads"):
        sparse(layer_graph(), method="plan", plan=str(plan))


@pytest.mark.parametrize("positions", ["kept", "turned"])
def test_heads_say_where_their_keys_stand(positions: str) -> None:
    graph = sparse(layer_graph(), method="infllm", **{**SETTING, "positions": positions})
    assert {(h.method, h.options["positions"]) for h in describe_heads(graph)} == {("infllm", positions)}
