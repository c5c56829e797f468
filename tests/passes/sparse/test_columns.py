"""Columns of vertical-slash as single keys beside blocks: exact lines, plans, full budgets, evidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fretsaw.ir import Graph, ReferenceKvCache, Value, evaluate_graph
from fretsaw.ir.kv import BLOCK
from fretsaw.ir.op import get_op
from fretsaw.passes.sparse.calibrate.layer import Layer
from fretsaw.passes.sparse.calibrate.measure import measure
from fretsaw.passes.sparse.calibrate.report import read_lists, token_lists
from fretsaw.passes.sparse.calibrate.survey import selectors
from fretsaw.passes.sparse.methods.minference import MInference
from tests.passes.sparse import oracles as o
from tests.passes.sparse.layers import SCALE, SIZE, Tokens, find, layer_graph, run_steps, sparse, tokens

Array = np.ndarray
SETTING = {"vertical": 35, "slash": 101, "dense_until": 0}
BOUND = 16 * SIZE * np.finfo(np.float32).eps  # a dot product of 8 and sums of probabilities, in f32


def lines(q: Array, k: Array) -> Array:
    """Keys that each head reads: exact columns, and the blocks that diagonals touch, bool[S, H, S]."""
    n, heads = len(q), []
    for h in range(q.shape[1]):
        own = q[:, h].astype(np.float64), o.own_keys(q, k)[:, h]
        columns, diagonals = o.vertical_and_slash(*own, SCALE, 35, 101)
        blocks = o.to_blocks(diagonals) | o.near(o.blocks_of(n), 0, 1)
        heads.append(columns | np.repeat(np.repeat(blocks, 64, 0), 64, 1)[:n, :n])
    out: Array = np.stack(heads, axis=1) & np.tri(n, dtype=bool)[:, None]
    return out


def attend(t: Tokens, q: Array, k: Array, seen: Array) -> Array:
    """Softmax over the keys that are seen, [S, H, E]."""
    logits = np.einsum("she,che->shc", q, o.own_keys(q, k)) * SCALE
    e = np.where(seen, np.exp(logits - logits.max()), 0)
    out: Array = np.einsum("shc,che->she", e / e.sum(axis=2, keepdims=True), np.repeat(t.v, 2, axis=1))
    return out


@pytest.mark.parametrize("counts", [(640,), (320, 64, 128), (448, 1, 192)])
def test_rows_read_exactly_the_columns(counts: tuple[int, ...]) -> None:
    graph = sparse(layer_graph(), method="minference", **SETTING)
    sequences = [tokens(n, seed) for seed, n in enumerate(counts)]
    ran = run_steps(graph, sequences, [list(counts)])
    for t, got, q, k in zip(sequences, ran.out, ran.q, ran.k, strict=True):
        seen = lines(q, k)
        assert len(q) < 448 or seen.mean() < 0.95 * np.tri(len(q)).mean()  # something is left out
        assert np.abs(got - attend(t, q, k, seen)).max() <= BOUND * np.abs(t.v).max()


def test_all_columns_are_dense_attention() -> None:
    """To rounding, also where the first keys lead by 110 nats; they are read as tokens, so not bit for bit."""
    graph, counts = sparse(layer_graph(rope=""), method="minference", vertical=330, slash=50, dense_until=0), [330, 70]
    t = [tokens(n, seed) for seed, n in enumerate(counts)]
    led = [Tokens(x.q.copy(), x.k.copy(), x.v) for x in t]
    for x in led:
        x.q[..., 0], x.k[..., 0] = 1, 0
        x.k[:8, :, 0] = 110 / SCALE
    for sequences in (t, led):
        got, want = (run_steps(g, sequences, [counts]).out for g in (graph, layer_graph(rope="")))
        for a, b, x in zip(got, want, sequences, strict=True):
            assert np.abs(a - b).max() <= 4 * 110 * SIZE * np.finfo(np.float32).eps * np.abs(x.v).max()


def test_other_heads_of_a_plan_read_no_columns(tmp_path: Path) -> None:
    plan = tmp_path / "heads.toml"
    plan.write_text(
        '[[head]]\nlayer = 0\nheads = [0, 3]\nmethod = "minference"\nvertical = 35\nslash = 101\ndense_until = 0\n'
        '[[head]]\nlayer = 0\nheads = [1]\nmethod = "lambda_mask"\nsink = 3\nwindow = 70\n'
    )
    graph = sparse(layer_graph(), method="plan", plan=str(plan))
    (listed,) = find(graph, "line_tokens")
    assert listed.attr("columns") == (35, 0, 0, 35)
    assert len(find(graph, "line_scores")) == len(find(graph, "merge_attention")) == 1
    (t,) = (tokens(640, 5),)
    ran = run_steps(graph, [t], [[640]])
    seen = lines(ran.q[0], ran.k[0])
    seen[:, 1], seen[:, 2] = o.spans(640, 3, 70), np.tri(640, dtype=bool)
    assert np.abs(ran.out[0] - attend(t, ran.q[0], ran.k[0], seen)).max() <= BOUND * np.abs(t.v).max()


def ran_lists(graph: Graph, t: Tokens) -> tuple[Layer, dict[Value, object]]:
    """A layer on one sequence, and what its values hold."""
    cache, count = ReferenceKvCache(1, 1), len(t.q)
    cache.begin_step([count])
    feed = {"kv": cache, "q": t.q, "k": t.k, "v": t.v, "positions": np.arange(count, dtype=np.int32)}
    (node,) = find(graph, "block_attention")
    found = evaluate_graph(graph, feed, keep=[v for n in graph.nodes for v in n.results])
    held: dict[Value, object] = {node["kv"]: cache}
    held.update(found.items())
    held.update((value, const.load()) for value, const in graph.consts.items())
    return Layer.of(node, held.__getitem__), held


def test_evidence_counts_tokens() -> None:
    t = tokens(640, 3)
    graph = sparse(layer_graph(), method="minference", **SETTING)
    layer, held = ran_lists(graph, t)
    (node,) = find(graph, "block_attention")
    way = read_lists(node, held.__getitem__, layer.heads, token_lists(graph)[0])
    found = measure(layer, [way])
    q, k = layer.q.transpose(1, 0, 2), layer.k.transpose(1, 0, 2)
    seen = lines(q, k)
    for h, loss in enumerate(found.losses[0]):
        p = o.attention_map(q[:, h].astype(np.float64), o.own_keys(q, k)[:, h], SCALE)
        mass = np.where(seen[:, h], p, 0).sum(axis=1)
        assert abs(loss.mass - mass.mean()) < 1e-6 and 0 < loss.error <= loss.bound
        tokens_of = sum(len(way.tokens(h, i)) for i in range(10))
        assert loss.density == pytest.approx((way.blocks[h].sum() + tokens_of / BLOCK) / 55, rel=1e-12)
        assert tokens_of > 0 and loss.mass < 1
        assert way.touched[h].sum() > way.blocks[h].sum()
    bare = measure(layer, [read_lists(node, held.__getitem__, layer.heads, None)])  # what the blocks alone would keep
    assert all(a.mass < b.mass for a, b in zip(bare.losses[0], found.losses[0], strict=True))


def test_a_survey_runs_what_lists_the_columns() -> None:
    (found,) = selectors(layer_graph(), MInference(vertical=35, slash=104, dense_until=0)).values()
    assert [n.op for n in found.nodes].count("line_tokens") == 1 and found.tokens is not None
    assert found.attention.op == "block_attention" and get_op("line_tokens").slots == ("kv", "columns", "mask")
