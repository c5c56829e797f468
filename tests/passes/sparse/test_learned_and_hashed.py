"""InfLLM, LongHeads, HyperAttention, SeerAttention, Quest, HiP, FlexPrefill's switch, against oracles of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fretsaw.ir import Graph
from fretsaw.ir.errors import PassError, UsageError
from tests.passes.sparse import oracles as o
from tests.passes.sparse.layers import SCALE, SIZE, Tokens, causal, find, layer_graph, run_steps, sparse, tokens

Array = np.ndarray
COUNTS = (400, 64, 190)
SEQUENCES = [tokens(n, seed) for seed, n in enumerate(COUNTS)]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    out: Array = e / e.sum(axis=-1, keepdims=True)
    return out


def turn(x: Array, positions: Array, freq: Array) -> Array:
    """Rotary embedding in the half layout by complex numbers: x [S, E]."""
    half = x.shape[-1] // 2
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * positions[:, None] * freq[None])
    return np.concatenate([z.real, z.imag], axis=-1)


def freq_of(graph: Graph) -> Array:
    return next(c.load() for v, c in graph.consts.items() if v.name == "freq").astype(np.float64)


def test_infllm() -> None:
    graph = sparse(layer_graph(), method="infllm", blocks=1, init=64, window=64, representatives=3, dense_until=0)
    ran = run_steps(graph, SEQUENCES, [list(COUNTS)])
    for mask, q, k in zip(ran.masks, ran.q, ran.k, strict=True):
        count, n, keys = len(q), o.blocks_of(len(q)), o.own_keys(q, k)
        r, c = np.arange(count)[:, None], np.arange(count)[None]
        local = (c <= r) & (r - c < 64)
        received = np.stack([
            softmax(np.where(local, q[:, h].astype(np.float64) @ keys[:, h].T * SCALE, -np.inf)).sum(axis=0)
            for h in range(4)
        ])  # fmt: skip
        scores = np.zeros((n, n))
        for h in range(4):
            together = received[2 * (h // 2)] + received[2 * (h // 2) + 1]
            points = np.stack([
                keys[b : b + 64, h][np.argsort(-together[b : b + 64], kind="stable")[:3]].mean(axis=0)
                for b in range(0, count, 64)
            ])  # fmt: skip
            scores += o.means(q[:, h].astype(np.float64)) @ points.T
        want = o.top_k(scores, o.near(n, 1, 2), lambda seen: 4)
        assert mask.shape[1] == 1 and np.array_equal(mask[:, 0], want)


def test_longheads() -> None:
    graph = sparse(layer_graph(), method="longheads", blocks=4, dense_until=0)
    freq = freq_of(graph)
    ran = run_steps(graph, SEQUENCES, [list(COUNTS)])
    for mask, s in zip(ran.masks, SEQUENCES, strict=True):
        count, n = len(s.q), o.blocks_of(len(s.q))
        for h in range(4):
            points = []
            for b in range(0, count, 64):
                part = slice(b, min(b + 64, count))
                where = np.arange(part.stop - b)
                q, k = (turn(x[part].astype(np.float64), where, freq) for x in (s.q[:, h], s.k[:, h // 2]))
                mean = (softmax(q @ k.T * SCALE) @ s.v[part, h // 2].astype(np.float64)).mean(axis=0)
                points.append(softmax(k @ mean * SCALE) @ k)
            scores = o.means(s.q[:, h].astype(np.float64)) @ np.stack(points).T
            assert np.array_equal(mask[:, h], o.top_k(scores, o.near(n, 1, 2), lambda seen: 4))


def test_hyper_attention_takes_near_buckets() -> None:
    graph = sparse(layer_graph(), method="hyper_attention", blocks=2, sampled=0, dense_until=0)
    planes = next(c.load() for v, c in graph.consts.items() if "planes" in v.name).astype(np.float64)
    gray = {code ^ (code >> 1): code for code in range(128)}
    ran = run_steps(graph, SEQUENCES, [list(COUNTS)])
    for mask, q, k in zip(ran.masks, ran.q, ran.k, strict=True):
        keys, n = o.own_keys(q, k), o.blocks_of(len(q))
        for h in range(4):
            ranks = [
                np.array([gray[int("".join("01"[int(b)] for b in row), 2)] for row in (o.means(x) @ planes > 0)])
                for x in (q[:, h].astype(np.float64), keys[:, h])
            ]
            scores = -np.abs(ranks[0][:, None] - ranks[1][None]).astype(float)
            assert np.array_equal(mask[:, h], o.top_k(scores, o.near(n, 0, 1), lambda seen: 2))


def test_hyper_attention_draws_by_its_seed() -> None:
    def masks(seed: int, cut: list[list[int]] | None = None) -> list[Array]:
        graph = sparse(layer_graph(), method="hyper_attention", blocks=1, sampled=2, dense_until=0, seed=seed)
        return run_steps(graph, SEQUENCES, cut or [list(COUNTS)]).masks

    first = masks(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, masks(1, [[256, 64, 128], [144, 0, 62]]), strict=True))
    assert not np.array_equal(first[0], masks(2)[0])
    assert first[0].sum(axis=2).max() <= 3 and not np.array_equal(first[0][:, 0], first[0][:, 1])


def test_a_sample_is_uniform() -> None:
    """Every visible block of the last row is drawn as often as any other: 256 draws, 3 standard deviations."""
    drawn = np.zeros(7)
    for seed in range(64):
        graph = sparse(layer_graph(), method="hyper_attention", blocks=1, sampled=1, dense_until=0, seed=seed)
        node = find(graph, "sampled_blocks")[0]
        from fretsaw.ir import ReferenceKvCache, get_op

        kv = ReferenceKvCache(1)
        kv.begin_step([448])
        mask = get_op("sampled_blocks").reference([kv], {n: node.attr(n) for n in ("groups", "count", "seed")})[0]
        drawn += mask[6].sum(axis=0)
    expected, deviation = 256 / 7, np.sqrt(256 * (1 / 7) * (6 / 7))
    assert (np.abs(drawn - expected) < 3 * deviation).all()


def safetensors(path: Path, tensors: dict[str, Array]) -> str:
    """A file in the safetensors format: header's length, header, data."""
    header, data = {}, b""
    for name, array in tensors.items():
        raw = array.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return str(path)


def gate(path: Path, *, double: bool = True, layers: int = 1, size: int = SIZE) -> tuple[str, dict[str, Array]]:
    rng, found = np.random.default_rng(9), {}
    for i in range(layers):
        base = f"model.layers.{i}.self_attn.attn_gate.mask_linear_"
        if double:
            found[f"{base}q.weight"] = rng.standard_normal((4, SIZE, size))
        found[f"{base}k.weight"] = rng.standard_normal((2 if double else 4, 3 * SIZE, size))
    return safetensors(path / "gate.safetensors", found), found


@pytest.mark.parametrize("double", [True, False])
def test_seer_attention(tmp_path: Path, double: bool) -> None:
    path, weights = gate(tmp_path, double=double, layers=2)
    graph = sparse(layer_graph(2), method="seer_attention", gate=path, threshold=0.2, tail=False, dense_until=0)
    freq, base = freq_of(graph), "model.layers.1.self_attn.attn_gate.mask_linear_"
    ran = run_steps(graph, SEQUENCES, [list(COUNTS)], layer=1)
    cut = run_steps(graph, SEQUENCES, [[256, 64, 64], [144, 0, 126]], layer=1)
    assert all(np.array_equal(a, b) for a, b in zip(ran.masks, cut.masks, strict=True))
    chosen = 0
    for mask, s in zip(ran.masks, SEQUENCES, strict=True):
        n = o.blocks_of(len(s.q))
        starts = np.arange(n) * 64
        for h in range(4):
            k = s.k[:, h // 2].astype(np.float64)
            parts = [k[b : b + 64] for b in starts]
            pools = np.stack([np.concatenate([x.max(axis=0), x.min(axis=0), x.mean(axis=0)]) for x in parts])
            kp = pools @ weights[f"{base}k.weight"].astype(np.float32).astype(np.float64)[h // 2 if double else h]
            qp = o.means(s.q[:, h].astype(np.float64))
            if double:
                qp = qp @ weights[f"{base}q.weight"].astype(np.float32).astype(np.float64)[h]
            logits = turn(qp, starts, freq) @ turn(kp, starts, freq).T / np.sqrt(SIZE)
            masses = softmax(np.where(causal(n), logits, -np.inf))
            want = ((masses > 0.2) | o.near(n, 1, 1)) & causal(n)
            assert np.array_equal(mask[:, h], want)
            chosen += int((want & ~o.near(n, 1, 1)).sum())
    assert chosen  # the gate chose, not only what is forced


def test_seer_attention_leaves_the_last_two_query_blocks_dense(tmp_path: Path) -> None:
    path, _ = gate(tmp_path)
    graph = sparse(layer_graph(), method="seer_attention", gate=path, threshold=1.0, dense_until=0)
    for mask in run_steps(graph, SEQUENCES, [list(COUNTS)]).masks:
        n = len(mask)
        want = (o.near(n, 1, 1) | (np.arange(n) >= n - 2)[:, None]) & causal(n)
        assert np.array_equal(mask, np.repeat(want[:, None], 4, axis=1))


def test_gates_that_do_not_fit(tmp_path: Path) -> None:
    path, _ = gate(tmp_path)
    with pytest.raises(PassError, match="the gate has no weight layers.1.self_attn.attn_gate.mask_linear_k.weight"):
        sparse(layer_graph(2), method="seer_attention", gate=path)
    with pytest.raises(PassError, match=r"the gate has weights q \(4, 8, 8\), k \(2, 24, 8\); this layer needs"):
        sparse(layer_graph(heads=2), method="seer_attention", gate=path)
    with pytest.raises(PassError, match="before a rotary embedding, and they come from none"):
        sparse(layer_graph(rope=""), method="seer_attention", gate=path)
    with pytest.raises(UsageError, match="the file has no tensor self_attn.attn_gate.mask_linear_k.weight"):
        sparse(layer_graph(), method="seer_attention", gate=safetensors(tmp_path / "x", {"a": np.zeros(3)}))
    (tmp_path / "short").write_bytes(b"abc")
    with pytest.raises(UsageError, match="cannot read the gate"):
        sparse(layer_graph(), method="seer_attention", gate=str(tmp_path / "short"))
    with pytest.raises(UsageError, match="needs gate=FILE"):
        sparse(layer_graph(), method="seer_attention")


@pytest.mark.parametrize("share", ["head", "group"])
def test_quest_lists_pages_for_tokens_that_decode(share: str) -> None:
    graph = sparse(layer_graph(), method="quest", budget=192, first_dense=0, share=share)
    s = tokens(450, 3)
    ran = run_steps(graph, [s, tokens(70, 4)], [[449, 64], [1, 6]])
    q, k, n = ran.q[0], ran.k[0], 8
    keys = o.own_keys(q, k)
    bounds = np.zeros((4, n))
    for h in range(4):
        for j in range(n):
            page = keys[j * 64 : (j + 1) * 64, h]
            products = np.stack([q[-1, h] * page.min(axis=0), q[-1, h] * page.max(axis=0)])
            bounds[h, j] = products.max(axis=0).sum()
            assert bounds[h, j] >= (page @ q[-1, h]).max() - 1e-5  # [S6] an upper bound, but for f32 sums of 8
    bounds = bounds if share == "head" else np.maximum(bounds[::2], bounds[1::2])
    want = []
    for row in bounds:
        best = np.argsort(-row[:7], kind="stable")[:2].tolist()
        want.append([j in best or j == 7 for j in range(n)])
    assert np.array_equal(ran.masks[0][-1], np.array(want))
    assert np.array_equal(ran.masks[1][1], np.ones_like(ran.masks[1][1]))  # six tokens are a prompt: dense
    listed = np.repeat(np.array(want), 4 // len(want), axis=0)
    for h in range(4):
        logits = np.where(np.repeat(listed[h], 64)[:450], keys[:, h] @ q[-1, h].astype(np.float64) * SCALE, -np.inf)
        got, mix = ran.out[0][-1, h], softmax(logits) @ s.v[:, h // 2]
        assert np.abs(got - mix).max() <= 16 * SIZE * np.finfo(np.float32).eps * np.abs(s.v).max()


def halving(rows: Array, keys: Array, visible: list[int], k: int) -> set[int]:
    """Hierarchical halving over the blocks of ``visible`` by recursion on lists."""
    parts = [list(map(int, p)) for p in np.array_split(visible, k)] if len(visible) > k else [[v] for v in visible]
    edges = np.linspace(0, len(visible), k + 1).round().astype(int)
    if len(visible) > k:
        parts = [visible[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    while any(len(p) > 1 for p in parts):
        halves = [h for p in parts for h in (p[: (len(p) + 1) // 2], p[(len(p) + 1) // 2 :]) if h]
        worth = [max(float(r @ keys[min(h[0] * 64 + 31, len(keys) - 1)]) for r in rows) for h in halves]
        order = sorted(range(len(halves)), key=lambda i: (-np.float32(worth[i]), i))[:k]
        parts = [halves[i] for i in sorted(order)]
    return {b for p in parts for b in p}


def test_hip() -> None:
    graph = sparse(layer_graph(), method="hip", mask_k=128, sink=64, window=64, dense_until=0)
    s = tokens(64 * 13 + 20, 5)
    ran = run_steps(graph, [s], [[len(s.q)]])
    keys = o.own_keys(ran.q[0], ran.k[0])
    for i in range(14):
        free = list(range(1, i - 1))
        for h in range(4):
            rows = ran.q[0][i * 64 : (i + 1) * 64, h].astype(np.float64)[1::2]
            want = halving(rows, keys[:, h], free, 2) | {0, i, max(i - 1, 0)}
            assert set(np.flatnonzero(ran.masks[0][i, h])) == want


def test_flex_prefill_switches_to_the_pooled_map() -> None:
    """Heads whose pooled map is near the true one take it, all of its rows together; the others keep their lines."""
    rng = np.random.default_rng(1)
    s = tokens(400, 2)
    q, k = s.q.copy(), s.k.copy()
    centers = rng.standard_normal((7, SIZE)) * 2
    for b in range(7):  # blocks of equal keys, and queries of the last rows that agree: what pooling sees is so
        k[b * 64 : (b + 1) * 64] = centers[b]
    q[-64:] = q[-1:]
    graph = sparse(layer_graph(rope=""), method="flex_prefill", gamma=0.6, tau=0.23, min_budget=64, dense_until=0)
    plain = sparse(layer_graph(rope=""), method="flex_prefill", gamma=0.6, min_budget=64, dense_until=0)
    peaked = tokens(300, 8)
    together = [Tokens(q, k, s.v), Tokens(peaked.q * 6, peaked.k, peaked.v)]
    ran, lines = (run_steps(g, together, [[400, 300]]) for g in (graph, plain))
    aware = []
    for got, line, q1, k1 in zip(ran.masks, lines.masks, ran.q, ran.k, strict=True):
        keys, n = o.own_keys(q1, k1), o.blocks_of(len(q1))
        for h in range(4):
            qh, kh = q1[:, h].astype(np.float64), keys[:, h]
            first = len(qh) - 1 - (len(qh) - 1) % 64
            pooled = softmax(o.means(kh) @ qh[first:].mean(axis=0) * SCALE)
            columns, _ = o.lines(qh, kh, SCALE, 64)
            true = np.pad(columns / columns.sum(), (0, n * 64 - len(columns))).reshape(n, 64).sum(axis=1)
            middle = (pooled + true) / 2
            js = sum((p[p > 0] * np.log(p[p > 0] / middle[p > 0])).sum() for p in (pooled, true)) / 2
            aware.append(bool(np.sqrt(js) < 0.23))
            if not aware[-1]:
                assert np.array_equal(got[:, h], line[:, h])
                continue
            masses = softmax(np.where(causal(n), o.means(qh) @ o.means(kh).T * SCALE, -np.inf))
            order = np.argsort(-masses, axis=None, kind="stable")
            kept = np.zeros(n * n, bool)
            kept[order[np.cumsum(masses.ravel()[order]) <= 0.6 * n]] = True
            few = o.flex(qh, kh, SCALE, 1e-9, 1)
            assert np.array_equal(got[:, h], (kept.reshape(n, n) | few) & causal(n))
    assert any(aware) and not all(aware)
