"""Measure attention that chooses its blocks beside dense attention: python -m fretsaw.tools.bench.chosen_attention.

    method                  chooses by                                      rule
    mean_pool               products of mean queries and mean keys          a share of the blocks
    xattention, stride 16   sums of antidiagonals                           as few as hold a share of the mass

A step is a whole prompt, or its last ``--queries`` tokens; one layer, a list per head. Every kernel from the cache to
the result is run, as a program runs them. Contents are random, so masses are nearly even and a share of the mass is
nearly that share of the blocks; what was chosen is counted. Calls take turns and the best of each counts.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fretsaw.ir.kv import BLOCK
from fretsaw.tools.bench.sparse_kernels import SHAPES, Kernels, step_arrays, take_turns

if TYPE_CHECKING:
    from tvm import tirx

    from fretsaw.backends.tvm.kernels.isa import Isa

METHODS = ("mean_pool", "xattention")
STRIDE = 16


class Chooser:
    """Kernels of one method over the arrays of one step; calling it writes the lists.

    Args:
        step: As :func:`step_arrays` makes it, on the device.
        rows: QB.
    """

    def __init__(self, method: str, shape: str, density: float, step: list[Any], rows: int, isa: Isa) -> None:
        import tvm

        from fretsaw.backends.tvm.kernels import select_antidiagonal, select_dots, select_pools
        from fretsaw.backends.tvm.kernels.select_masks import MaskSpec, compact, mask
        from fretsaw.backends.tvm.kernels.select_rules import RuleSpec, rule

        heads, kv_heads, size = SHAPES[shape]
        q, keys, _, table, lens, cu = step
        width = table.shape[-1]

        def array(*shape: int, dtype: str = "float32") -> Any:
            return tvm.runtime.tensor(np.zeros(shape, dtype))

        scores = array(rows, heads, width)
        forced, kept = (array(rows, heads, width, dtype="int8") for _ in range(2))
        self.idx, self.cnt = array(rows, heads, width, dtype="int32"), array(rows, heads, dtype="int32")
        self.calls: list[Callable[[], object]] = []

        def then(func: tirx.PrimFunc, *args: Any) -> None:
            from fretsaw.tools.bench.kernels import build

            call = build(func, isa)
            self.calls.append(lambda: call(*args))

        if method == "mean_pool":
            pooled, pools = array(rows, heads, size), array(1, kv_heads, width, size)
            then(select_pools.pool_queries(select_pools.PoolSpec(heads, size, "mean", isa)), lens, cu, q, pooled)
            pool = select_pools.pool_keys(select_pools.PoolSpec(kv_heads, size, "mean", isa))
            then(pool, keys, table, lens, cu, 0, pools)
            dots = select_dots.block_scores(select_dots.DotSpec(heads, kv_heads, size, size**-0.5, isa))
            then(dots, lens, cu, pooled, pools, scores)
        else:
            spec = select_antidiagonal.AntidiagonalSpec(heads, kv_heads, size, STRIDE, size**-0.5, isa)
            then(select_antidiagonal.antidiagonal(spec), keys, table, lens, cu, q, 0, scores)
        then(mask(MaskSpec("forced", heads, (1,), local=1)), lens, cu, forced)
        kind = "share" if method == "mean_pool" else "top_p"
        then(rule(RuleSpec(kind, heads, density)), lens, cu, scores, forced, kept)
        then(compact(heads), kept, self.idx, self.cnt)

    def __call__(self) -> None:
        for call in self.calls:
            call()


def measure(shape: str, tokens: int, queries: int, density: float, seconds: float) -> dict[str, Any]:
    """Times of dense attention, and for each method of choosing, and of choosing and reading."""
    import tvm

    from fretsaw.tools.bench.attention import machine_isa

    isa = machine_isa()
    kernels = Kernels(shape, "head", "f32", isa)
    step = [tvm.runtime.tensor(x) for x in step_arrays(kernels.spec, tokens, queries)]
    rows = queries // BLOCK + 2
    out = tvm.runtime.tensor(np.zeros((queries, kernels.spec.heads * kernels.spec.values), np.float32))
    choosers = {m: Chooser(m, shape, density, step, rows, isa) for m in METHODS}

    def read(chooser: Chooser) -> None:
        chooser()
        kernels.sparse(*step, chooser.idx, chooser.cnt, out, 0)

    calls: dict[str, Callable[[], object]] = {"dense": lambda: kernels.dense(*step, out, 0)}
    for name, chooser in choosers.items():
        calls[f"{name}: choosing"] = chooser
        calls[name] = lambda chooser=chooser: read(chooser)  # type: ignore[misc]
    best = take_turns(calls, seconds)
    visible = kernels.spec.heads * sum(b + 1 for b in range((tokens - queries) // BLOCK, tokens // BLOCK))
    found: dict[str, Any] = {"shape": shape, "tokens": tokens, "queries": queries, "dense": best["dense"]}
    for name, chooser in choosers.items():
        found[name] = {
            "density": float(chooser.cnt.numpy().sum()) / visible, "choosing": best[f"{name}: choosing"],
            "seconds": best[name], "speedup": best["dense"] / best[name],
        }  # fmt: skip
    return found


def main() -> None:
    """Print a line per method, or with ``--json`` one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="smol")
    parser.add_argument("--tokens", type=int, default=32768, help="a multiple of 64")
    parser.add_argument("--queries", type=int, default=0, help="tokens of the step, the last of the prompt; 0: all")
    parser.add_argument("--density", type=float, default=0.1, help="share of the blocks, or of the mass")
    parser.add_argument("--seconds", type=float, default=1.0, help="time to measure; one round may take more")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.tokens % BLOCK or given.queries % BLOCK:
        parser.error(f"--tokens and --queries are multiples of {BLOCK}")
    os.environ["TVM_NUM_THREADS"] = str(given.threads)  # read when TVM loads
    found = measure(given.shape, given.tokens, given.queries or given.tokens, given.density, given.seconds)
    if given.json:
        print(json.dumps(found))
        return
    print(f"dense: {1e3 * found['dense']:.1f} ms")
    for name in METHODS:
        x = found[name]
        choosing = f"choosing {1e3 * x['choosing']:.1f} ms ({x['choosing'] / found['dense']:.1%} of dense)"
        print(f"{name}: density {x['density']:.3f}, {choosing}, all {1e3 * x['seconds']:.1f} ms, {x['speedup']:.2f}x")


if __name__ == "__main__":
    main()
