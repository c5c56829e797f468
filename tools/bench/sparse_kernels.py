"""Measure attention over random block lists beside dense attention: python -m fretsaw.tools.bench.sparse_kernels.

    shapes      smol    9 query heads over 3 of 64 (SmolLM2-135M)
                llama   32 over 8 of 128
    lists       head    one per query head
                group   one per kv head
    densities   shares of the blocks that a query block sees; its own block is always among the listed

A step is a whole prompt, or its last ``--queries`` tokens. Lists are random, so neighbours share no pages: the hard
case for caches. Calls take turns and the best of each counts; only ratios within one run mean anything on a machine
that others use.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, TypeVar

import numpy as np

from fretsaw.backends.program.kv_storage import KvType, page_shapes
from fretsaw.ir.kv import BLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fretsaw.backends.tvm.kernels.attention import AttentionSpec
    from fretsaw.backends.tvm.kernels.isa import Isa

SHAPES = {"smol": (9, 3, 64), "llama": (32, 8, 128)}
DENSITIES = (1.0, 0.5, 0.25, 0.1, 0.05)
_DTYPES = {"f32": np.float32, "f16": np.float16, "int8": np.int8}
Call = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)


class Row(TypedDict):
    """One measurement: seconds of a call, and how many times faster than dense attention it is."""

    shape: str
    lists: str
    kv: str
    tokens: int
    queries: int
    density: float
    seconds: float
    speedup: float


def random_lists(queries: int, tokens: int, groups: int, density: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """idx [QB, G, KB] and cnt [QB, G] for the last ``queries`` of ``tokens`` tokens."""
    rng, blocks = np.random.default_rng(0), -(-tokens // BLOCK)
    idx = np.zeros((queries // BLOCK + 2, groups, blocks), np.int32)
    cnt = np.zeros(idx.shape[:2], np.int32)
    for row, block in enumerate(range((tokens - queries) // BLOCK, blocks)):
        count = max(1, round(density * (block + 1)))
        for g in range(groups):
            others = rng.permutation(block)[: count - 1]
            idx[row, g, :count], cnt[row, g] = np.sort([*others, block]), count
    return idx, cnt


def step_arrays(spec: AttentionSpec, tokens: int, queries: int) -> list[NDArray[np.generic]]:
    """Queries, pages in random order, table, lengths and offsets of a step of one sequence."""
    rng, pages = np.random.default_rng(0), -(-tokens // BLOCK)
    q = rng.standard_normal((queries, spec.heads, spec.head_dim)).astype(np.float32)
    pools = []
    for shape in page_shapes(spec.head_dim, spec.values, BLOCK, spec.kv):
        one = rng.standard_normal(shape).astype(_DTYPES[spec.kv]) if spec.kv != "int8" else np.ones(shape, np.int8)
        pools.append(np.repeat(one[None], pages * spec.kv_heads, 0))
    table = rng.permutation(pages * spec.kv_heads).astype(np.int32).reshape(1, 1, spec.kv_heads, pages)
    lens = np.full((1, 1, spec.kv_heads), tokens - queries, np.int32)
    return [q, *pools, table, lens, np.array([0, queries], np.int32)]


class Kernels:
    """Dense attention, and attention over lists, compiled for one shape."""

    def __init__(self, shape: str, lists: str, kv: KvType, isa: Isa) -> None:
        from fretsaw.backends.tvm.kernels.attention import AttentionSpec, attention
        from fretsaw.backends.tvm.kernels.block_attention import BlockAttentionSpec, block_attention
        from fretsaw.tools.bench.kernels import build

        heads, kv_heads, size = SHAPES[shape]
        self.spec = BlockAttentionSpec(
            heads, kv_heads, size, isa, kv=kv, lists=heads if lists == "head" else kv_heads, listed_decode=True
        )
        self.dense = build(attention(AttentionSpec(heads, kv_heads, size, isa, kv=kv)), isa)
        self.sparse = build(block_attention(self.spec), isa)

    def calls(self, tokens: int, queries: int, densities: Sequence[float]) -> dict[float, Call]:
        """A call for each density; that of key 0 is dense attention."""
        import tvm

        step = [tvm.runtime.tensor(x) for x in step_arrays(self.spec, tokens, queries)]
        out = tvm.runtime.tensor(np.zeros((queries, self.spec.heads * self.spec.values), np.float32))
        calls: dict[float, Call] = {0.0: lambda: self.dense(*step, out, 0)}
        for density in densities:
            lists = [tvm.runtime.tensor(x) for x in random_lists(queries, tokens, self.spec.groups, density)]
            calls[density] = lambda lists=lists: self.sparse(*step, *lists, out, 0)  # type: ignore[misc]
        return calls


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Rows as they are measured."""
    from fretsaw.tools.bench.attention import machine_isa

    kernels = Kernels(options.shape, options.lists, options.kv, machine_isa())
    for tokens in options.tokens:
        queries = min(tokens, options.queries or tokens)
        best = take_turns(kernels.calls(tokens, queries, options.densities), options.seconds / len(options.tokens))
        for density in options.densities:
            yield Row(
                shape=options.shape, lists=options.lists, kv=options.kv, tokens=tokens, queries=queries,
                density=density, seconds=best[density], speedup=best[0.0] / best[density],
            )  # fmt: skip


def take_turns(calls: Mapping[Name, Call], seconds: float) -> dict[Name, float]:
    """Seconds of the fastest call of each, in as many rounds as fit into ``seconds``, at least one."""
    import time

    best: dict[Name, float] = {}
    start = time.perf_counter()
    while not best or time.perf_counter() - start < seconds:
        for key, call in calls.items():
            begin = time.perf_counter()
            call()
            best[key] = min(best.get(key, float("inf")), time.perf_counter() - begin)
    return best


def main() -> None:
    """Print a table, or with ``--json`` one object per line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="smol")
    parser.add_argument("--lists", choices=["head", "group"], default="head")
    parser.add_argument("--kv", choices=["f32", "f16", "int8"], default="f32")
    parser.add_argument("--tokens", type=int, default=[2048, 8192, 32768], nargs="+", metavar="N")
    parser.add_argument("--densities", type=float, default=DENSITIES, nargs="+", metavar="N")
    parser.add_argument("--queries", type=int, default=0, help="tokens of the step, the last of the prompt; 0: all")
    parser.add_argument("--seconds", type=float, default=10.0, help="time to measure; one round may take more")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(options.threads)  # read when TVM loads
    for row in measure(options):
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            print(
                f"{row['shape']:5} {row['lists']:5} {row['kv']:4} {row['queries']:6} of {row['tokens']:6} tokens, "
                f"density {row['density']:4.2f}: {1e3 * row['seconds']:9.2f} ms, {row['speedup']:6.2f} x dense",
                flush=True,
            )


if __name__ == "__main__":
    main()
