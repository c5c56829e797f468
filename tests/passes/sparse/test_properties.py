"""What every method has to keep: exactly dense settings, forced blocks, causal selection, monotony, needles, ties.

Numbers in brackets are those of the property catalogue of sparse attention: S1 ... S10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.passes.sparse.methods import METHODS
from fretsaw.passes.sparse.options import Sparse
from tests.passes.sparse.layers import SIZE, Ran, Tokens, causal, layer_graph, run_steps, sparse, tokens

Array = np.ndarray
COUNTS = (330, 64, 1, 200)
Options = dict[str, object]

# Settings that must be exactly dense for sequences of up to 330 tokens, other budgets being as small as they can be.
DENSE: list[tuple[str, Options]] = [
    ("dense", {}), ("lambda_mask", {"window": 330, "sink": 0}), ("lambda_mask", {"window": 300, "sink": 30}),
    ("tri_shape", {"window": 330, "sink": 0, "last": 0}), ("tri_shape", {"window": 1, "sink": 0, "last": 330}),
    ("tri_shape", {"window": 1, "sink": 0, "last": 0, "dense_until": 384}),
    ("triangle_mix", {"starting_layer": 0, "window": 330, "sink": 0, "last": 0}),
    ("masformer", {"full_layers": "1", "window": 330}),
    ("s2", {"stride": 1, "local": 1, "dense_until": 0}), ("s2", {"stride": 4, "local": 6, "dense_until": 0}),
    ("s2", {"stride": 4, "local": 1, "dense_heads": 2, "dense_until": 0}),
    ("xattention", {"threshold": 1, "dense_until": 0}), ("xattention", {"threshold": 0, "dense_until": 384}),
    ("xattention", {"threshold": 1, "share": "group", "dense_until": 0}),
    ("mean_pool", {"density": 1, "dense_until": 0}), ("mean_pool", {"blocks": 6, "dense_until": 0}),
    ("mean_pool", {"density": 0, "dense_until": 384}), ("prism", {"p": 1, "dense_until": 0}),
    ("minference", {"vertical": 330, "slash": 50, "columns": "blocks", "dense_until": 0}),
    ("minference", {"vertical": 30, "slash": 330, "dense_until": 0}),
    ("minference", {"pattern": "block_sparse", "blocks": 6, "dense_until": 0}),
    ("minference", {"pattern": "a_shape", "vertical": 0, "slash": 330}),
    ("flex_prefill", {"gamma": 1, "min_budget": 64, "dense_until": 0}),
    ("flex_prefill", {"gamma": 1, "min_budget": 64, "dense_until": 0, "tau": 0.5}),
    ("flex_prefill", {"gamma": 0.1, "min_budget": 330, "dense_until": 0}),
    ("dhsa", {"density": 1, "dense_until": 0}), ("dhsa", {"density": 1, "form": "vs", "dense_until": 0}),
    ("infllm_v2", {"blocks": 6, "window": 64, "dense_until": 0}),
    ("infllm_v2", {"blocks": 1, "window": 330, "dense_until": 0}), ("infllm_v2", {"blocks": 1, "window": 0}),
    ("moa", {"alpha": 0, "beta": 1}), ("moa", {"alpha": 384, "beta": 0}),
    ("hip", {"mask_k": 384, "sink": 0, "window": 0, "dense_until": 0}),
    ("hip", {"mask_k": 64, "sink": 0, "window": 330, "dense_until": 0}),
    ("quest", {"budget": 384, "first_dense": 0}),
]  # fmt: skip


def led(count: int, seed: int, nats: float) -> Tokens:
    """Tokens whose first keys lead every query's logits by ``nats`` (without a rotary embedding)."""
    t = tokens(count, seed)
    q, k = t.q.copy(), t.k.copy()
    q[..., 0], k[..., 0] = 1, 0
    k[:8, :, 0] = nats / 0.35
    return Tokens(q, k, t.v)


@pytest.mark.parametrize("case", range(len(DENSE)), ids=lambda i: f"{DENSE[i][0]}-{i}")
def test_full_budgets_list_everything(case: int) -> None:
    """[S1] Bit for bit, also where the first keys lead by 20, 60 and 110 nats, and where all keys are the same."""
    method, options = DENSE[case]
    graph = sparse(layer_graph(rope="half" if method == "prism" else ""), method=method, **options)
    sequences = [led(330, 1, 20.0), led(64, 2, 60.0), led(1, 3, 110.0), led(200, 4, 110.0)]
    same = [Tokens(np.ones_like(t.q), np.ones_like(t.k), t.v) for t in sequences]
    for case_of in (sequences, same):
        ran = run_steps(graph, case_of, [list(COUNTS)])
        for mask in ran.masks:
            assert np.array_equal(mask, np.repeat(causal(len(mask))[:, None], mask.shape[1], axis=1))
    dense = run_steps(layer_graph(rope="half" if method == "prism" else ""), sequences, [list(COUNTS)])
    ran = run_steps(graph, sequences, [list(COUNTS)])
    for got, want, t in zip(ran.out, dense.out, sequences, strict=True):
        # f32 logits of 110 nats are exact to 110 eps, which a softmax passes on to its weights
        assert np.abs(got - want).max() <= 4 * 110 * SIZE * np.finfo(np.float32).eps * np.abs(t.v).max()


@pytest.mark.parametrize("case", range(len(DENSE)), ids=lambda i: f"{DENSE[i][0]}-{i}")
def test_methods_know_when_they_are_dense(case: int) -> None:
    method, given_options = DENSE[case]
    if method == "s2" and "dense_heads" in given_options:
        return  # whether these are all heads is for the model to say
    options = METHODS[method].options()
    made = options.variant({"method": method})
    from fretsaw.passes.kit.options import fill

    filled = fill("sparse_attention", made, {"method": method, **given_options})
    assert isinstance(filled, Sparse) and filled.exact_dense(330)


# One small setting of every method that lists blocks by scores, and blocks that it must always list: sink and local.
SMALL: dict[str, tuple[Options, int, int]] = {
    "xattention": ({"threshold": 0.3}, 1, 1), "mean_pool": ({"density": 0.2}, 1, 2), "prism": ({"p": 0.3}, 1, 1),
    "minference": ({"vertical": 32, "slash": 101, "columns": "blocks"}, 1, 1),
    "flex_prefill": ({"gamma": 0.3, "min_budget": 64}, 1, 1),
    "dhsa": ({"density": 0.2}, 1, 1), "infllm_v2": ({"blocks": 4, "window": 64}, 1, 2),
    "hip": ({"mask_k": 64}, 1, 3), "s2": ({"local": 2}, 0, 2), "moa": ({"alpha": 64, "beta": 0}, 1, 1),
}  # fmt: skip


def small(method: str, sequences: Sequence[Tokens] = (), **more: object) -> Ran:
    """A small setting of a method on whole sequences."""
    sequences = sequences or [tokens(n, seed) for seed, n in enumerate(COUNTS)]
    options = {"dense_until": 0, **SMALL[method][0], **more}
    graph = sparse(layer_graph(rope="half" if method == "prism" else ""), method=method, **options)
    return run_steps(graph, sequences, [[len(t.q) for t in sequences]])


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0])
def test_forced_blocks_stay_whatever_the_scores(method: str, bad: float) -> None:
    """[S3] Keys of NaN, infinities and zeros."""
    _, sink, local = SMALL[method]
    sequences = [tokens(n, seed) for seed, n in enumerate(COUNTS)]
    sequences = [replace(t, k=np.full_like(t.k, bad)) for t in sequences]
    with np.errstate(invalid="ignore", over="ignore"):
        ran = small(method, sequences=sequences)
    for mask in ran.masks:
        n = len(mask)
        must = (np.arange(n) < sink)[None] | ~np.tri(n, k=-local, dtype=bool)
        assert (mask | ~(must & causal(n))[:, None]).all()
        assert not (mask & ~causal(n)[:, None]).any()


@pytest.mark.parametrize("method", SMALL)
def test_selection_is_as_causal_as_the_method_says(method: str) -> None:
    """[S2] Other tokens after a block do not change its list, except where the last queries choose."""
    before = tokens(400, 7)
    rng = np.random.default_rng(8)
    q, k = before.q.copy(), before.k.copy()
    q[320:], k[320:] = rng.standard_normal(q[320:].shape) * 3, rng.standard_normal(k[320:].shape) * 3
    first, second = (small(method, sequences=[t]) for t in (before, Tokens(q, k, before.v)))
    same = np.array_equal(first.masks[0][:5, :, :5], second.masks[0][:5, :, :5])
    last = method in ("minference", "flex_prefill")
    assert same != last and (METHODS[method].causal_selection or method in ("minference", "flex_prefill", "dhsa"))
    third = small(method, sequences=[Tokens(before.q, before.k, np.concatenate([before.v[:320], q[320:, :2]]))])
    assert np.array_equal(first.masks[0], third.masks[0])  # values never choose
    assert np.array_equal(first.out[0][:320], third.out[0][:320])  # and attention stays causal


# A wider window of infllm_v2 is none of these: forced blocks count towards the budget and displace others.
LOOSER: list[tuple[str, str, tuple[object, ...]]] = [
    ("xattention", "threshold", (0, 0.2, 0.5, 0.9, 1)), ("mean_pool", "density", (0, 0.2, 0.5, 1)),
    ("mean_pool", "blocks", (1, 3, 5, 6)), ("prism", "p", (0, 0.3, 0.6, 1)), ("dhsa", "density", (0.1, 0.5, 1)),
    ("minference", "vertical", (30, 34, 330)), ("minference", "slash", (100, 103, 330)),
    ("flex_prefill", "gamma", (0.1, 0.5, 0.9, 1)), ("infllm_v2", "blocks", (1, 4, 6)),
    ("s2", "local", (1, 3, 6)), ("moa", "alpha", (-64, 64, 330)), ("moa", "beta", (0, 0.5, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "option", "values"), LOOSER)
def test_looser_settings_give_supersets(method: str, option: str, values: tuple[object, ...]) -> None:
    """[S4]"""
    masks = [small(method, (), **{option: value}).masks for value in values]
    for tighter, looser in zip(masks, masks[1:], strict=False):
        for a, b in zip(tighter, looser, strict=True):
            assert not (a & ~b).any()
    assert sum(m.sum() for m in masks[0]) < sum(m.sum() for m in masks[-1])


@pytest.mark.parametrize("method", ["xattention", "infllm_v2", "minference", "flex_prefill", "mean_pool"])
def test_adding_a_vector_to_all_keys_changes_nothing(method: str) -> None:
    """[S10] What softmax or a ranking sees does not move, tails included: nothing is padded with zeros."""
    sequences = [tokens(n, seed) for seed, n in enumerate((330, 70))]
    moved = [replace(t, k=t.k + np.float32(0.25)) for t in sequences]  # exact in f32 sums of this size or nearly
    first, second = small(method, sequences=sequences), small(method, sequences=moved)
    for a, b in zip(first.masks, second.masks, strict=True):
        assert np.array_equal(a, b)


def needle(count: int, at: int, seed: int) -> Tokens:
    """One key that lies along the last 64 queries of every head."""
    t = tokens(count, seed)
    q, k = t.q * 0.3, t.k * 0.3
    q[-64:, :, 3], k[at, :, 3] = 4, 20
    return Tokens(q.astype(np.float32), k.astype(np.float32), t.v)


@pytest.mark.parametrize("method", ["xattention", "minference", "flex_prefill", "infllm_v2"])
def test_a_needle_is_found(method: str) -> None:
    """[S8] By methods that look at keys one by one, or at means of few of them."""
    one = {
        "flex_prefill": {"min_budget": 128},
        "minference": {"vertical": 31, "slash": 100},
    }  # a line beside forced ones
    more = one.get(method, {})
    mask = small(method, [needle(384, 150, 3)], **more).masks[0]
    assert mask[-1, :, 150 // 64].all()
    assert not small(method, [tokens(384, 3)], **more).masks[0][-1, :, 150 // 64].all()  # it is the needle


@pytest.mark.parametrize(("method", "options"), [("s2", {"local": 1, "stride": 6}), ("moa", {"alpha": 64, "beta": 0})])
def test_static_methods_do_not_find_a_needle(method: str, options: Options) -> None:
    mask = small(method, [needle(384, 150, 3)], **options).masks[0]
    assert not mask[-1, :, 150 // 64].all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1 << 16), method=st.sampled_from(sorted(SMALL)))
def test_the_same_lists_every_time(seed: int, method: str) -> None:
    """[S9]"""
    sequences = [tokens(200, seed), tokens(65, seed + 1)]
    a, b = (small(method, sequences=sequences) for _ in range(2))
    assert all(np.array_equal(x, y) for x, y in zip(a.masks, b.masks, strict=True))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1 << 16), blocks=st.integers(1, 4))
def test_halving_keeps_its_budget(seed: int, blocks: int) -> None:
    """[S6]"""
    mask = small("hip", sequences=[tokens(640, seed)], mask_k=64 * blocks, sink=64, window=0).masks[0]
    visible = np.arange(1, 11)[:, None]
    forced = np.minimum(visible, 2)
    assert (mask.sum(axis=2) == np.minimum(visible, forced + blocks)).all()


def test_kept_mass_reaches_the_threshold() -> None:
    """[S5] In the selector's own masses, for rows that need not read everything."""
    from tests.passes.sparse import oracles

    ran = small("xattention", threshold=0.6, sequences=[tokens(384, 5)])
    for h in range(4):
        mass = oracles.antidiagonal(ran.q[0][:, h].astype(np.float64), ran.k[0][:, h // 2].astype(np.float64), 8, 0.35)
        kept = (mass * ran.masks[0][:, h]).sum(axis=1)
        assert (kept >= 0.6 * mass.sum(axis=1) - 1e-6).all()  # masses of at most 8 cells of f32: 8 eps
