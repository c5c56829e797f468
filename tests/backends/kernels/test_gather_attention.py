"""Attention over listed tokens against torch's SDPA in f64, and merged with attention over the other tokens."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fretsaw.backends.tvm.kernels.attention import AttentionSpec, attention
from fretsaw.backends.tvm.kernels.gather_attention import GatherSpec, gather_attention
from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.backends.tvm.kernels.merge_attention import merge_attention
from fretsaw.ir.kv import BLOCK
from tests.backends.kernels.kernel_run import Array, Built, threads
from tests.backends.kernels.paged import LAYER, make, masked_attention
from tests.turning import turned

SPECS = {
    "head": GatherSpec(9, 3, 64, V3, lists=9, lse=True),
    "group": GatherSpec(6, 2, 24, V3, value_dim=16, soft_cap=5.0, kv="f16", lse=True),
    "far": GatherSpec(9, 3, 64, V3, lists=1, lse=True, distance=512),
    "far-f16": GatherSpec(
        6, 2, 24, V3, value_dim=16, kv="f16", lse=True, listed_decode=True, distance=70, layout="interleaved"
    ),
    "far-int8": GatherSpec(4, 2, 80, V3, lists=1, kv="int8", lse=True, distance=5),
    "one-list": GatherSpec(4, 2, 80, V3, lists=1, kv="int8", listed_decode=True, lse=True),
}
BEFORE, COUNTS = [0, 17, 130, 5, 600, 64, 100], [200, 13, 1, 0, 1, 64, 157]
FREQ = (10000.0 ** (-np.arange(40) / 40)).astype(np.float32)  # of the rotary embedding, for heads up to 80
ERROR = 4e-6  # of sums of some hundred products of normal numbers whose weights add up to one: 32 eps


@cache
def built(spec: GatherSpec) -> Built:
    """The compiled kernel."""
    return Built(gather_attention(spec))


@cache
def merger(heads: int, size: int) -> Built:
    """The compiled kernel that merges."""
    return Built(merge_attention(heads, size, V3, lse=True))


def lists_of(spec: GatherSpec, before: list[int], counts: list[int], chosen: Array) -> list[Array]:
    """ids and cnt from ``chosen`` bool[B, G, blocks, S]; what does not count is garbage."""
    rows, most = sum(counts) // BLOCK + 2 * len(counts), int(chosen.sum(3).max()) + 1
    ids, cnt = np.full((rows, spec.groups, most), -5, np.int32), np.full((rows, spec.groups), 3, np.int32)
    token = 0
    for b, (start, count) in enumerate(zip(before, counts, strict=True)):
        for i, block in enumerate(range(start // BLOCK, -(-(start + count) // BLOCK))):
            for g in range(spec.groups):
                own = np.flatnonzero(chosen[b, g, block, : min((block + 1) * BLOCK, start + count)])
                row = token // BLOCK + 2 * b + i
                ids[row, g, : own.size], cnt[row, g] = own, own.size
        token += count
    return [ids, cnt]


def step(spec: GatherSpec, args: list[Array], lists: list[Array]) -> tuple[Array, Array]:
    """Outputs [T, H * Ev] and logarithms [T, H] of one call; what is not written shows as 7."""
    shapes = (len(args[0]), spec.heads * spec.values), (len(args[0]), spec.heads)
    turn = [FREQ[: spec.head_dim // 2]] if spec.distance else []
    made = built(spec)(*args, *lists, *turn, *(np.full(s, 7, np.float32) for s in shapes), scalars=(LAYER,))
    return made[-2], made[-1]


def choose(spec: GatherSpec, density: float) -> Array:
    """Random tokens for the blocks of a batch, bool[B, G, blocks, S]."""
    most = max(b + n for b, n in zip(BEFORE, COUNTS, strict=True))
    random = np.random.default_rng(1).random((len(COUNTS), spec.groups, -(-most // BLOCK), most))
    chosen: Array = random < density
    chosen[:, :, 1] = False  # a block that lists nothing
    return chosen


def oracle(spec: GatherSpec, args: list[Array], chosen: Array) -> tuple[Array, Array]:
    """The same in f64."""

    def moved(x: Array, positions: Array, keys: bool) -> Array:
        slots = -positions if keys else spec.distance - positions
        return turned(x, slots[:, None] * FREQ[: spec.head_dim // 2].astype(np.float64), spec.layout)

    def seen(b: int, h: int, positions: Array, keys: Array) -> Array:
        mask: Array = chosen[b, h * spec.groups // spec.heads][positions // BLOCK, keys]
        return mask & (keys <= positions) & (len(positions) > 1 or spec.listed_decode)

    return masked_attention(spec, args, seen, moved=moved if spec.distance else None)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_any_tokens_are_masked_attention(spec: GatherSpec) -> None:
    args = make(spec, [[n] * spec.kv_heads for n in BEFORE], COUNTS)
    for density in (0.02, 0.6):
        chosen = choose(spec, density)
        lists = lists_of(spec, BEFORE, COUNTS, chosen)
        out, lse = step(spec, args, lists)
        want, want_lse = oracle(spec, args, chosen)
        seen = np.isfinite(want_lse)
        assert 0 < seen.sum() < seen.size
        assert np.abs(out - want).max() < ERROR
        assert np.abs(lse[seen] - want_lse[seen]).max() < ERROR
        assert np.isneginf(lse[~seen]).all()
        assert np.abs(out - oracle(spec, args, ~chosen)[0]).max() > 1000 * ERROR  # the bound tells lists apart
        with threads(1):
            assert np.array_equal(step(spec, args, lists)[0], out)
        # Entries that no query sees, and lengths beyond the room, are passed over.
        ids = np.where(np.arange(lists[0].shape[2]) < lists[1][..., None], lists[0], 2**30)
        assert np.array_equal(step(spec, args, [ids, np.full_like(lists[1], ids.shape[2] + 1)])[0], out)


def test_chunks_do_not_show() -> None:
    spec, length = SPECS["head"], 200
    q, k, v, table, lens, cu = make(spec, [[0] * spec.kv_heads], [length])
    chosen = choose(spec, 0.3)[:1, :, :, :length]
    whole = step(spec, [q, k, v, table, lens, cu], lists_of(spec, [0], [length], chosen))
    for a, b in ((0, 2), (2, 70), (70, 73), (73, length)):
        lens[LAYER] = a
        args = [q[a:b], k, v, table, lens, np.array([0, b - a], np.int32)]
        part = step(spec, args, lists_of(spec, [a], [b - a], chosen))
        assert all(np.array_equal(p, w[a:b]) for p, w in zip(part, whole, strict=True)), (a, b)


def test_a_partition_of_the_keys_merges_to_all_of_them() -> None:
    """Tokens that are listed and tokens that are not, merged, are dense attention; an empty side changes no bit."""
    spec = replace(SPECS["one-list"], kv="f32", listed_decode=True)
    args = make(spec, [[n] * spec.kv_heads for n in BEFORE], COUNTS)
    chosen = choose(spec, 0.4)
    sides = [step(spec, args, lists_of(spec, BEFORE, COUNTS, c)) for c in (chosen, ~chosen)]
    shape = (-1, spec.heads, spec.values)
    outs = [np.zeros_like(sides[0][0]), np.zeros_like(sides[0][1])]
    merge = merger(spec.heads, spec.values)
    given = [x for out, lse in sides for x in (out.reshape(shape), lse)]
    out, lse = merge(*given, *outs)[-2:]
    dense = Built(attention(AttentionSpec(spec.heads, spec.kv_heads, spec.head_dim, V3, lse=True)))
    want, want_lse = dense(*args, *outs, scalars=(LAYER,))[-2:]
    assert np.abs(out - want).max() < ERROR and np.abs(lse - want_lse).max() < ERROR
    nothing = [np.zeros_like(given[0]), np.full_like(lse, -np.inf)]
    for pair in ([*given[:2], *nothing], [*nothing, *given[:2]]):
        same, same_lse = merge(*pair, *outs)[-2:]
        assert np.array_equal(same, sides[0][0]) and np.array_equal(same_lse, sides[0][1])
    none, none_lse = merge(*nothing, *nothing, *outs)[-2:]
    assert not none.any() and np.isneginf(none_lse).all()
