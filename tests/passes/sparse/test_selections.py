"""Lists of every method against oracles that know nothing of the IR; ragged, and in chunks wherever that may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tests.passes.sparse import oracles as o
from tests.passes.sparse.layers import SCALE, SIZE, layer_graph, run_steps, sparse, tokens

Array = np.ndarray
Oracle = Callable[[Array, Array], Array]
ANY_LENGTH, WHOLE_CELLS = (400, 1, 190, 64, 63), (400, 8, 192, 64, 128)


def of_tokens(seen: Callable[[int], Array]) -> Oracle:
    return lambda q, k: o.per_head(q, k, lambda q, k: o.to_blocks(seen(len(q))))


def of_scores(scores: Callable[[Array, Array], Array], rule: Callable[[Array], Array]) -> Oracle:
    return lambda q, k: o.per_head(q, k, lambda q, k: rule(scores(q, k)))


def groups_of(mask: Array, groups: int) -> Array:
    """Of heads that share a list the first one's, bool[n, groups, n]."""
    return mask[:, :: mask.shape[1] // groups]


def strided(q: Array, k: Array) -> Array:
    n = o.blocks_of(len(q))
    i, j = np.arange(n)[:, None], np.arange(n)[None]
    heads = [(i - j < 2) | ((j + h * 2 + 1) % 4 == 0) for h in range(2)]  # step = 4 // 2
    return np.stack([m & np.tri(n, dtype=bool) for m in heads], axis=1)


def prism(q: Array, k: Array) -> Array:
    high, low = np.array([0, 1, 4, 5]), np.array([1, 2, 3, 5, 6, 7])  # pairs 0 to 1, pairs 1 to 3
    return o.per_head(q, k, lambda q, k: np.logical_or(*(
        o.top_p(o.band(q, k, dims), o.near(o.blocks_of(len(q)), 1, 1), 0.6) for dims in (high, low)
    )))  # fmt: skip


def shared_mass(q: Array, k: Array) -> Array:
    keys, n = o.own_keys(q, k), o.blocks_of(len(q))
    masses = [o.antidiagonal(q[:, h].astype(np.float64), keys[:, h], 8, SCALE) for h in range(4)]
    pairs = [masses[0] + masses[1], masses[2] + masses[3]]
    return np.stack([o.top_p(m, o.near(n, 1, 1), 0.7) for m in pairs], axis=1)


def compressed(q: Array, k: Array) -> Array:
    scores, n = o.compressed(q, k, SCALE, 2), o.blocks_of(len(q))
    return np.stack([o.top_k(scores[:, g], o.near(n, 1, 2), lambda seen: 4) for g in range(2)], axis=1)


def elastic(q: Array, k: Array) -> Array:
    n = o.blocks_of(len(q))
    i, j = np.arange(n)[:, None], np.arange(n)[None]
    tokens = -64 + 0.25 * 64 * (i + 1)
    mask = (j < 1) | (i - j < np.maximum(1, np.ceil(tokens / 64)))
    return np.stack([mask & np.tri(n, dtype=bool)] * 2, axis=1)


def at(density: float) -> Callable[[int], int]:
    return lambda seen: max(1, int(np.ceil(density * seen)))


CASES: dict[str, tuple[dict[str, object], Oracle, Sequence[int]]] = {
    "lambda_mask": ({"sink": 3, "window": 70}, of_tokens(lambda n: o.spans(n, 3, 70)), ANY_LENGTH),
    "masformer": ({"window": 100, "full_layers": "1"}, of_tokens(lambda n: o.spans(n, 0, 100)), ANY_LENGTH),
    "s2": ({"local": 2, "offset": 1}, strided, ANY_LENGTH),
    "xattention": (
        {"threshold": 0.6, "stride": 8},
        of_scores(lambda q, k: o.antidiagonal(q, k, 8, SCALE), lambda s: o.top_p(s, o.near(len(s), 1, 1), 0.6)),
        WHOLE_CELLS,
    ),
    "xattention shared": ({"threshold": 0.7, "share": "group"}, shared_mass, WHOLE_CELLS),
    "mean_pool": (
        {"density": 0.5},
        of_scores(lambda q, k: o.pooled(q, k, SCALE), lambda s: o.top_k(s, o.near(len(s), 1, 2), at(0.5))),
        ANY_LENGTH,
    ),
    "mean_pool blocks": (
        {"blocks": 4},
        of_scores(lambda q, k: o.pooled(q, k, SCALE), lambda s: o.top_k(s, o.near(len(s), 1, 2), lambda seen: 4)),
        ANY_LENGTH,
    ),
    "prism": ({"p": 0.6}, prism, ANY_LENGTH),
    "minference blocks": (
        {"pattern": "block_sparse", "blocks": 4},
        of_scores(lambda q, k: o.pooled(q, k, 1.0), lambda s: o.top_k(s, o.near(len(s), 1, 2), lambda seen: 4)),
        ANY_LENGTH,
    ),
    "minference a": (
        {"pattern": "a_shape", "vertical": 10, "slash": 65}, of_tokens(lambda n: o.spans(n, 10, 65)), ANY_LENGTH,
    ),
    "dhsa": (
        {"density": 0.4},
        of_scores(lambda q, k: o.pooled(q, k, SCALE), lambda s: o.top_k(s, o.near(len(s), 1, 1), at(0.4))),
        ANY_LENGTH,
    ),
    "infllm_v2": ({"blocks": 4, "window": 64}, compressed, ANY_LENGTH),
    "moa": ({"alpha": -64, "beta": 0.25}, elastic, ANY_LENGTH),
}  # fmt: skip
# How each sequence comes: chunks end at multiples of 64.
CUTS: Sequence[Sequence[int]] = ([1000] * 20, [64] * 20, [128, 64, 192, 64])


def steps_of(counts: Sequence[int], cut: Sequence[int]) -> list[list[int]]:
    """Steps in which every sequence takes the next of ``cut``."""
    left, steps = list(counts), []
    for size in cut:
        step = [min(n, size) for n in left]
        if any(step):
            steps.append(step)
        left = [n - s for n, s in zip(left, step, strict=True)]
    return steps


def sparse_layer(case: str) -> tuple[object, Oracle, Sequence[int]]:
    options, oracle, counts = CASES[case]
    name = case.split()[0]
    if name not in ("lambda_mask", "masformer") and options.get("pattern") != "a_shape":
        options = {"dense_until": 0, **options}
    return sparse(layer_graph(2), method=name, layers="0", **options), oracle, counts


@pytest.mark.parametrize("case", CASES)
def test_lists_are_the_oracle_s_in_any_chunks(case: str) -> None:
    graph, oracle, counts = sparse_layer(case)
    sequences = [tokens(n, seed) for seed, n in enumerate(counts)]
    for cut in CUTS:
        ran = run_steps(graph, sequences, steps_of(counts, cut))  # type: ignore[arg-type]
        for mask, q, k in zip(ran.masks, ran.q, ran.k, strict=True):
            want = oracle(q, k)
            assert np.array_equal(mask, groups_of(want, mask.shape[1])), (case, cut, len(q))
        assert ran.masks[0].sum() < ran.masks[0].shape[1] * 28  # of 7 blocks some are left out: it chose


@pytest.mark.parametrize("case", CASES)
def test_attention_is_that_of_the_lists(case: str) -> None:
    """Softmax over what the listed blocks, the causal mask and exact spans leave."""
    graph, oracle, counts = sparse_layer(case)
    options = CASES[case][0]
    sink, window = {"lambda_mask": (3, 70), "masformer": (0, 100), "minference a": (10, 65)}.get(case, (0, 1 << 20))
    sequences = [tokens(n, seed) for seed, n in enumerate(counts)]
    ran = run_steps(graph, sequences, steps_of(counts, [1000]))  # type: ignore[arg-type]
    for s, got, q, k in zip(sequences, ran.out, ran.q, ran.k, strict=True):
        n = len(q)
        listed = np.repeat(np.repeat(oracle(q, k), 64, axis=0), 64, axis=2)[:n, :, :n]
        listed = np.repeat(listed, 4 // listed.shape[1], axis=1)
        if n == 1 and not options.get("decode", case == "masformer"):
            listed = np.ones_like(listed)
        seen = listed & o.spans(n, sink, window)[:, None]
        logits = np.einsum("she,che->shc", q, o.own_keys(q, k)) * SCALE
        e = np.where(seen, np.exp(logits - logits.max()), 0)
        want = np.einsum("shc,che->she", e / e.sum(axis=2, keepdims=True), np.repeat(s.v, 2, axis=1))
        bound = 16 * SIZE * np.finfo(np.float32).eps  # a dot product of 8 and sums of probabilities, in f32
        assert np.abs(got - want).max() <= bound * np.abs(s.v).max(), case


@pytest.mark.parametrize("counts", [(384,), (300, 70, 128)])
def test_vertical_slash_covers_the_ideal_lines(counts: Sequence[int]) -> None:
    graph = sparse(layer_graph(), method="minference", vertical=35, slash=104, columns="blocks", dense_until=0)
    ran = run_steps(graph, [tokens(n, seed) for seed, n in enumerate(counts)], [list(counts)])
    for mask, q, k in zip(ran.masks, ran.q, ran.k, strict=True):
        ideal = o.per_head(
            q, k, lambda q, k: o.to_blocks(o.vertical_slash(q, k, SCALE, 35, 104)) | o.near(o.blocks_of(len(q)), 0, 1)
        )
        assert not (ideal & ~mask).any()
        if len(q) % 64 == 0:  # a last block that is not whole is counted as if it were
            assert np.array_equal(ideal, mask)


@pytest.mark.parametrize("counts", [(400,), (300, 70, 128)])
def test_flex_prefill(counts: Sequence[int]) -> None:
    graph = sparse(layer_graph(), method="flex_prefill", gamma=0.7, min_budget=64, dense_until=0)
    ran = run_steps(graph, [tokens(n, seed) for seed, n in enumerate(counts)], [list(counts)])
    for mask, q, k in zip(ran.masks, ran.q, ran.k, strict=True):
        assert np.array_equal(mask, o.per_head(q, k, lambda q, k: o.flex(q, k, SCALE, 0.7, 1)))


@pytest.mark.parametrize("method", ["tri_shape", "triangle_mix"])
def test_dense_tails(method: str) -> None:
    more = {"starting_layer": 0} if method == "triangle_mix" else {}
    graph = sparse(layer_graph(), method=method, sink=5, window=80, last=70, dense_until=0, **more)
    counts = (400, 64, 129)
    ran = run_steps(graph, [tokens(n, seed) for seed, n in enumerate(counts)], [list(counts)])
    for mask, q, k in zip(ran.masks, ran.q, ran.k, strict=True):
        n = o.blocks_of(len(q))
        want = o.per_head(q, k, lambda q, k: o.to_blocks(o.spans(len(q), 5, 80, 70)))
        tail = np.arange(n) >= (len(q) - 70) // 64  # a block with one of the last rows is dense as a whole
        assert np.array_equal(mask, (want | tail[:, None, None]) & np.tri(n, dtype=bool)[:, None])
