"""Measure attention over single keys beside dense attention: python -m fretsaw.tools.bench.gathered_attention.

Every query block of every head reads its own random tokens, as many as ``--keys`` says or as it sees: columns of a
vertical-slash method, without their diagonals. ``turned`` reads them all at one distance (InfLLM); ``merge`` is what
puts two such results together. Calls take turns and the best of each counts; only ratios within one run mean anything
on a machine that others use. The least that a list can cost is its share of the keys that dense attention reads.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fretsaw.ir.kv import BLOCK
from fretsaw.tools.bench.sparse_kernels import SHAPES, Call, step_arrays, take_turns

if TYPE_CHECKING:
    from numpy.typing import NDArray

DISTANCE = 4096


def random_tokens(tokens: int, groups: int, keys: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """ids [QB, G, keys] and cnt [QB, G] of a prompt in one step: ``keys`` tokens of those up to the block's end."""
    rng, blocks = np.random.default_rng(0), -(-tokens // BLOCK)
    ids = np.zeros((tokens // BLOCK + 2, groups, keys), np.int32)
    cnt = np.zeros(ids.shape[:2], np.int32)
    for row in range(blocks):
        seen = min((row + 1) * BLOCK, tokens)
        for g in range(groups):
            own = np.sort(rng.permutation(seen)[:keys])
            ids[row, g, : own.size], cnt[row, g] = own, own.size
    return ids, cnt


def calls_of(shape: str, tokens: int, counts: Sequence[int]) -> dict[str, Call]:
    """``dense``, ``merge``, and two calls for each number of keys."""
    import tvm

    from fretsaw.backends.tvm.kernels.attention import AttentionSpec, attention
    from fretsaw.backends.tvm.kernels.gather_attention import GatherSpec, gather_attention
    from fretsaw.backends.tvm.kernels.merge_attention import merge_attention
    from fretsaw.tools.bench.attention import machine_isa
    from fretsaw.tools.bench.kernels import build

    (heads, kv_heads, size), isa = SHAPES[shape], machine_isa()
    spec = GatherSpec(heads, kv_heads, size, isa, lists=heads, lse=True)
    step = [tvm.runtime.tensor(x) for x in step_arrays(spec, tokens, tokens)]
    rng = np.random.default_rng(1)
    freq, out, other = (
        tvm.runtime.tensor(rng.standard_normal(n).astype(np.float32))
        for n in ((size // 2,), (tokens, heads * size), (tokens, heads, size))
    )
    lse = tvm.runtime.tensor(rng.standard_normal((tokens, heads)).astype(np.float32))
    dense = build(attention(AttentionSpec(heads, kv_heads, size, isa)), isa)
    merge = build(merge_attention(heads, size, isa), isa)
    plain = build(gather_attention(spec), isa)
    turned = build(
        gather_attention(GatherSpec(heads, kv_heads, size, isa, lists=heads, lse=True, distance=DISTANCE)), isa
    )
    calls: dict[str, Call] = {
        "dense": lambda: dense(*step, out, 0), "merge": lambda: merge(other, lse, other, lse, out),
    }  # fmt: skip
    for count in counts:
        lists = [tvm.runtime.tensor(x) for x in random_tokens(tokens, heads, count)]
        calls[f"{count} keys"] = lambda lists=lists: plain(*step, *lists, out, lse, 0)  # type: ignore[misc]
        calls[f"{count} keys, turned"] = lambda lists=lists: turned(*step, *lists, freq, out, lse, 0)  # type: ignore[misc]
    return calls


def share_of_keys(tokens: int, count: int) -> float:
    """Pairs of a query and a listed key over those of causal attention, in whole blocks of queries."""
    ends = np.minimum((np.arange(-(-tokens // BLOCK)) + 1) * BLOCK, tokens)
    return float(np.minimum(ends, count).sum() / ends.sum())


def main() -> None:
    """Print a table, or with ``--json`` one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="smol")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--keys", type=int, default=[250, 1000], nargs="+", metavar="N")
    parser.add_argument("--seconds", type=float, default=20.0, help="time to measure; one round may take more")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(given.threads)  # read when TVM loads
    best = take_turns(calls_of(given.shape, given.tokens, given.keys), given.seconds)
    if given.json:
        print(json.dumps({"shape": given.shape, "tokens": given.tokens, "seconds": best}))
        return
    dense = best.pop("dense")
    print(f"dense attention of {given.tokens} tokens, {given.shape}: {1e3 * dense:.1f} ms")
    for name, seconds in best.items():
        least = "" if name == "merge" else f", least {share_of_keys(given.tokens, int(name.split()[0])):6.1%}"
        print(f"{name:18} {1e3 * seconds:8.1f} ms, {seconds / dense:6.1%} of it{least}")


if __name__ == "__main__":
    main()
