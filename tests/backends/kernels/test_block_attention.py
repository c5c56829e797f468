"""Attention over listed pages against torch's SDPA in f64, and its bits against dense attention.

Queries, pages and lists are random over ragged batches; slots past the end of a sequence and entries past the end of a
list hold garbage.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fretsaw.backends.tvm.kernels.attention import AttentionSpec, attention
from fretsaw.backends.tvm.kernels.block_attention import BlockAttentionSpec, block_attention
from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.ir.kv import BLOCK
from tests.backends.kernels.kernel_run import Array, Built, threads
from tests.backends.kernels.paged import LAYER, make, masked_attention, rows_of

SPECS = {
    "head": BlockAttentionSpec(9, 3, 64, V3, lists=9),
    "group": BlockAttentionSpec(9, 3, 64, V3, kv="f16"),
    "one-list": BlockAttentionSpec(6, 2, 80, V3, lists=1, segment=2, kv="int8", lse=True),
    "across": BlockAttentionSpec(12, 4, 24, V3, lists=6, value_dim=16, sinks=True, lse=True),
    "wide-cap": BlockAttentionSpec(8, 1, 136, V3, soft_cap=5.0, segment=3),
    "spans": BlockAttentionSpec(4, 2, 32, V3, lists=4, first=(0, 5, 64, 70), last=(1, 37, 130, 0), lse=True),
    "shared-spans": BlockAttentionSpec(4, 2, 32, V3, first=(0, 5, 64, 70), last=(90, 37, 130, 0), kv="int8"),
    "decode": BlockAttentionSpec(9, 3, 64, V3, lists=9, listed_decode=True, segment=2, lse=True),
    "decode-group": BlockAttentionSpec(8, 2, 16, V3, listed_decode=True, last=(70,) * 8, segment=2, sinks=True),
}
BATCH = ([0, 17, 130, 5, 600, 64, 100], [200, 13, 1, 0, 1, 64, 157])  # tokens in the cache before, tokens of the step
F32_ERROR = 4e-6  # of sums of some hundred products of normal numbers whose weights add up to one: 32 eps


@cache
def built(spec: AttentionSpec) -> Built:
    """The compiled kernel of a spec."""
    return Built(block_attention(spec) if isinstance(spec, BlockAttentionSpec) else attention(spec))


def dense_of(spec: BlockAttentionSpec) -> AttentionSpec:
    """The dense kernel with the same arithmetic."""
    return AttentionSpec(
        spec.heads, spec.kv_heads, spec.head_dim, spec.isa, spec.value_dim, soft_cap=spec.soft_cap, sinks=spec.sinks,
        segment=spec.segment, kv=spec.kv, lse=spec.lse,
    )  # fmt: skip


def blocks_of(before: int, count: int) -> range:
    """Query blocks that a step touches."""
    return range(before // BLOCK, -(-(before + count) // BLOCK))


def lists_of(spec: BlockAttentionSpec, before: list[int], counts: list[int], chosen: Array) -> list[Array]:
    """idx and cnt from ``chosen`` bool[B, G, blocks, blocks]; what does not count is garbage."""
    rows = sum(counts) // BLOCK + 2 * len(counts)
    idx = np.full((rows, spec.groups, chosen.shape[-1]), 2**30, np.int32)
    cnt, token = np.full((rows, spec.groups), 7, np.int32), 0
    for b, (start, count) in enumerate(zip(before, counts, strict=True)):
        for i, block in enumerate(blocks_of(start, count)):
            row = token // BLOCK + 2 * b + i
            for g in range(spec.groups):
                own = np.flatnonzero(chosen[b, g, block, : block + 1])
                idx[row, g, : own.size], cnt[row, g] = own, own.size
        token += count
    return [idx, cnt]


def choose(spec: BlockAttentionSpec, batch: int, blocks: int, density: float, seed: int = 0) -> Array:
    """Random blocks; some rows choose nothing."""
    random = np.random.default_rng(seed).random((batch, spec.groups, blocks, blocks))
    chosen: Array = random < density
    return chosen


def step(spec: AttentionSpec, args: list[Array], lists: list[Array], sinks: Array | None = None) -> list[Array]:
    """Outputs [T, H * Ev], and logarithms if the spec has them, of one call."""
    out, lse = np.zeros((len(args[0]), spec.heads * spec.values), np.float32), np.zeros((len(args[0]), spec.heads))
    outs = [out, *([lse.astype(np.float32)] if spec.lse else [])]
    given = [*args, *lists, *([] if sinks is None else [sinks]), *outs]
    return built(spec)(*given, scalars=(LAYER,))[-len(outs) :]


def oracle(spec: BlockAttentionSpec, args: list[Array], chosen: Array, sinks: Array | None) -> tuple[Array, Array]:
    """Outputs f64 [T, H * Ev] and logarithms [T, H] of attention over the mask that the lists stand for."""

    def seen(b: int, h: int, positions: Array, keys: Array) -> Array:
        if len(positions) == 1 and not spec.listed_decode:
            return keys <= positions
        mask: Array = chosen[b, h * spec.groups // spec.heads][positions // BLOCK, keys // BLOCK]
        if spec.last and spec.last[h]:
            near, early = positions - keys < spec.last[h], keys < (spec.first[h] if spec.first else 0)
            mask = mask & (near | early)
        return mask & (keys <= positions)

    return masked_attention(spec, args, seen, sinks)


def case(spec: BlockAttentionSpec, density: float) -> tuple[list[Array], list[Array], Array, Array | None]:
    """The batch: arguments, lists, what they list, sinks."""
    before, counts = BATCH
    args = make(spec, [[n] * spec.kv_heads for n in before], counts)
    chosen = choose(spec, len(counts), args[3].shape[3], density)
    sinks = np.random.default_rng(9).standard_normal(spec.heads).astype(np.float32) if spec.sinks else None
    return args, lists_of(spec, before, counts, chosen), chosen, sinks


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_any_lists_are_masked_attention(spec: BlockAttentionSpec) -> None:
    args, lists, chosen, sinks = case(spec, 0.5)
    assert (lists[1] == 0).any()  # rows that see nothing are among them
    made = step(spec, args, lists, sinks)
    want, want_lse = oracle(spec, args, chosen, sinks)
    assert np.abs(made[0] - want).max() < F32_ERROR
    if spec.lse:
        seen = np.isfinite(want_lse)
        assert np.abs(made[1][seen] - want_lse[seen]).max() < F32_ERROR
        assert np.isneginf(made[1][~seen]).all()
    other = oracle(spec, args, ~chosen, sinks)[0]  # the bound tells one list from another
    assert np.abs(made[0] - other).max() > 1000 * F32_ERROR
    with threads(1):
        for one, two in zip(step(spec, args, lists, sinks), made, strict=True):
            assert np.array_equal(one, two)


@pytest.mark.parametrize("name", [n for n, spec in SPECS.items() if not spec.last])
def test_full_lists_give_the_bits_of_dense_attention(name: str) -> None:
    spec = SPECS[name]
    args, lists, _, sinks = case(spec, 2.0)
    for sparse, dense in zip(step(spec, args, lists, sinks), step(dense_of(spec), args, [], sinks), strict=True):
        assert np.array_equal(sparse, dense)


@pytest.mark.parametrize("name", ["head", "one-list", "spans", "shared-spans", "across"])
def test_chunks_do_not_show(name: str) -> None:
    """One sequence whole, and in pieces that begin anywhere, none of them a single token."""
    spec, length = SPECS[name], 330
    q, k, v, table, lens, cu = make(spec, [[0] * spec.kv_heads], [length])
    chosen = choose(spec, 1, 6, 0.5)
    sinks = np.random.default_rng(9).standard_normal(spec.heads).astype(np.float32) if spec.sinks else None
    whole = step(spec, [q, k, v, table, lens, cu], lists_of(spec, [0], [length], chosen), sinks)
    for cuts in ([0, 64, 128, length], [0, 2, 70, 73, 200, length]):
        for a, b in zip(cuts[:-1], cuts[1:], strict=True):
            lens[LAYER] = a
            args = [q[a:b], k, v, table, lens, np.array([0, b - a], np.int32)]
            part = step(spec, args, lists_of(spec, [a], [b - a], chosen), sinks)
            assert all(np.array_equal(p, w[a:b]) for p, w in zip(part, whole, strict=True)), (a, b)


def test_lists_of_a_group_are_lists_of_its_heads() -> None:
    """A kv head's list, given once or repeated for its heads, gives the same bits."""
    shared = replace(SPECS["head"], lists=3)
    args, lists, _, _ = case(shared, 0.5)
    repeated = [np.repeat(x, 3, axis=1) for x in lists]
    assert np.array_equal(step(shared, args, lists)[0], step(SPECS["head"], args, repeated)[0])


def test_entries_out_of_reach_are_passed_over() -> None:
    """Blocks after the queries' own, negative numbers and lengths beyond the room change nothing."""
    spec = SPECS["head"]
    args, (idx, cnt), _, _ = case(spec, 0.5)
    plain = step(spec, args, [idx, cnt])[0]
    assert np.array_equal(step(spec, args, [np.where(idx == 2**30, -1, idx), np.full_like(cnt, 99)])[0], plain)
    assert np.array_equal(step(spec, args, [idx, np.full_like(cnt, 99)])[0], plain)


def test_spans_at_their_ends() -> None:
    """A span over everything is dense; a window of one token without sinks is the token's own value."""
    spec = replace(SPECS["spans"], first=(600, 0, 0, 0), last=(100, 10**6, 1, 1))
    args, lists, _, _ = case(spec, 2.0)
    dense = step(dense_of(spec), args, [])[0].reshape(-1, 4, 32)
    made = step(spec, args, lists)[0].reshape(-1, 4, 32)
    assert np.array_equal(made[:, :2], dense[:, :2])
    q, _, v_pages, table, _, cu = args
    pages = table[LAYER, 0, 1, :4]
    own = rows_of(spec, v_pages[pages], 32, transpose=False)[: cu[1]]
    assert np.array_equal(made[: cu[1], 2], own) and np.array_equal(made[: cu[1], 3], own)


@pytest.mark.parametrize("name", ["decode", "decode-group"])
def test_decoding_over_lists_gives_the_bits_of_prefill(name: str) -> None:
    spec, length = SPECS[name], 600
    q, k, v, table, lens, cu = make(spec, [[0] * spec.kv_heads], [length])
    chosen = choose(spec, 1, 10, 0.4)
    sinks = np.random.default_rng(9).standard_normal(spec.heads).astype(np.float32) if spec.sinks else None
    whole = step(spec, [q, k, v, table, lens, cu], lists_of(spec, [0], [length], chosen), sinks)
    for at in (0, 63, 64, 300, length - 1):
        lens[LAYER] = at
        args = [q[at : at + 1], k, v, table, lens, np.array([0, 1], np.int32)]
        one = step(spec, args, lists_of(spec, [at], [1], chosen), sinks)
        assert all(np.array_equal(p[0], w[at]) for p, w in zip(one, whole, strict=True)), at
