"""Time the selectors of sparse attention beside dense attention: python -m fretsaw.tools.bench.select_kernels 8192.

One sequence from its start, at SmolLM2-135M's shapes (9 heads over 3 of keys, 64 wide), random contents, f32. A line
gives milliseconds, what share of dense attention that is in the same run, and for scores that are products GFLOP/s
beside a probe of the machine. The masks that rules make are compacted into lists, as a program would.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from tvm import tirx

    from fretsaw.backends.tvm.kernels.isa import Isa

HEADS, KV_HEADS, SIZE, BLOCK = 9, 3, 64, 64
SCALE = SIZE**-0.5


def fastest(call: Callable[[], object], budget: float = 3.0) -> float:
    """Seconds of the fastest of up to 9 calls, fewer where they are slow."""
    best, spent = float("inf"), 0.0
    for _ in range(9):
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
        if spent > budget:
            break
    return best


@dataclass(frozen=True)
class Step:
    """Arrays of one sequence of ``tokens`` tokens, all in this step."""

    tokens: int
    isa: Isa

    def tensor(self, *shape: int, dtype: str = "float32", high: int = 0) -> object:
        """Random contents: normal numbers, or integers below ``high``."""
        import numpy as np
        import tvm

        rng = np.random.default_rng(0)
        data = rng.integers(0, high, shape) if high else rng.standard_normal(shape)
        return tvm.runtime.tensor(data.astype(dtype))

    def array(self, data: np.ndarray) -> object:
        """A tensor of given contents."""
        import tvm

        return tvm.runtime.tensor(data)

    @property
    def width(self) -> int:
        """KB."""
        return self.tokens // BLOCK

    @property
    def rows(self) -> int:
        """QB."""
        return self.tokens // BLOCK + 2

    def geometry(self) -> list[object]:
        """``table``, ``lens``, ``cu``."""
        import numpy as np

        table = np.arange(KV_HEADS * self.width, dtype=np.int32).reshape(1, 1, KV_HEADS, self.width)
        lens = np.zeros((1, 1, KV_HEADS), np.int32)
        return [self.array(a) for a in (table, lens, np.array([0, self.tokens], np.int32))]

    def build(self, func: tirx.PrimFunc) -> Callable[..., object]:
        """Compile one kernel."""
        from fretsaw.tools.bench.kernels import build

        return build(func, self.isa)


def dense(step: Step) -> float:
    """Seconds of dense attention."""
    from fretsaw.backends.tvm.kernels.attention import AttentionSpec, attention

    run = step.build(attention(AttentionSpec(HEADS, KV_HEADS, SIZE, step.isa)))
    pages = KV_HEADS * step.width
    args = [step.tensor(step.tokens, HEADS, SIZE), step.tensor(pages, SIZE, BLOCK), step.tensor(pages, BLOCK, SIZE)]
    out = step.tensor(step.tokens, HEADS * SIZE)
    return fastest(lambda: run(*args, *step.geometry(), out, 0))


def scores(step: Step) -> dict[str, tuple[float, float]]:
    """Seconds of each score, and its multiplications and additions where it is mostly those (else 0)."""
    from fretsaw.backends.tvm.kernels import (
        select_antidiagonal,
        select_bounds,
        select_dots,
        select_lines,
        select_pools,
        select_windows,
    )

    isa, n, blocks = step.isa, step.tokens, step.width
    table, lens, cu = step.geometry()
    keys, q = step.tensor(KV_HEADS * blocks, SIZE, BLOCK), step.tensor(n, HEADS, SIZE)
    over, pooled = step.tensor(step.rows, HEADS, blocks), step.tensor(step.rows, HEADS, SIZE)
    pools = step.tensor(1, KV_HEADS, blocks, SIZE)
    out: dict[str, tuple[float, float]] = {}

    def on_keys(name: str, func: tirx.PrimFunc, flops: float, *made: object) -> None:
        run = step.build(func)
        out[name] = fastest(lambda: run(keys, table, lens, cu, q, 0, *made)), flops

    for stride in (8, 16):
        spec = select_antidiagonal.AntidiagonalSpec(HEADS, KV_HEADS, SIZE, stride, SCALE, isa)
        work = stride * SIZE * HEADS * (n / stride) ** 2
        on_keys(f"antidiagonal_scores, stride {stride}", select_antidiagonal.antidiagonal(spec), work, over)
    lines = [step.tensor(1, HEADS, n) for _ in range(2)]
    line = select_lines.LineSpec(HEADS, KV_HEADS, SIZE, 64, SCALE, isa)
    on_keys("line_scores, 64 rows", select_lines.line_scores(line), 2.0 * 64 * n * SIZE * HEADS, *lines)
    window = select_windows.WindowSpec(HEADS, KV_HEADS, SIZE, 32, 16, SCALE, isa)
    grouped = step.tensor(step.rows, KV_HEADS, blocks)
    on_keys("compressed_scores", select_windows.compressed_scores(window), n * n / 16 * SIZE * HEADS, grouped)
    bound = step.build(select_bounds.bound_scores(select_bounds.BoundSpec(HEADS, KV_HEADS, SIZE, SCALE, isa)))
    out["bound_scores"] = fastest(lambda: bound(lens, cu, q, pools, pools, over)), 2.0 * n * n / BLOCK * SIZE * HEADS
    rows = step.build(select_pools.pool_queries(select_pools.PoolSpec(HEADS, SIZE, "mean", isa)))
    out["pool_queries"] = fastest(lambda: rows(lens, cu, q, pooled)), 0
    pool = step.build(select_pools.pool_keys(select_pools.PoolSpec(KV_HEADS, SIZE, "mean", isa)))
    out["pool_keys"] = fastest(lambda: pool(keys, table, lens, cu, 0, pools)), 0
    dots = step.build(select_dots.block_scores(select_dots.DotSpec(HEADS, KV_HEADS, SIZE, SCALE, isa)))
    out["block_scores"] = fastest(lambda: dots(lens, cu, pooled, pools, over)), 0
    soft = step.build(select_dots.softmax_blocks(HEADS, isa))
    out["softmax_blocks"] = fastest(lambda: soft(over, step_like(step))), 0
    return out


def step_like(step: Step) -> object:
    """Room for an array over blocks."""
    return step.tensor(step.rows, HEADS, step.width)


def masks(step: Step) -> dict[str, tuple[float, float]]:
    """Seconds of each rule, and of the lists."""
    import numpy as np

    from fretsaw.backends.tvm.kernels.select_line_blocks import LineBlockSpec, line_blocks
    from fretsaw.backends.tvm.kernels.select_line_tokens import LineTokenSpec, line_tokens
    from fretsaw.backends.tvm.kernels.select_masks import MaskSpec, compact, mask
    from fretsaw.backends.tvm.kernels.select_rules import RuleSpec, rule

    _, lens, cu = step.geometry()
    shape = (step.rows, HEADS, step.width)
    over = step.array(np.exp(np.random.default_rng(0).standard_normal(shape)).astype(np.float32))
    forced, out = (step.array(np.zeros(shape, np.int8)) for _ in range(2))
    made: dict[str, tuple[float, float]] = {}
    first = step.build(mask(MaskSpec("forced", HEADS, (1,), local=1)))
    made["forced_blocks"] = fastest(lambda: first(lens, cu, forced)), 0
    for kind, value in (("top_p", 0.9), ("top_k", 32), ("above", 1.0)):
        run = step.build(rule(RuleSpec(kind, HEADS, value)))
        made[f"select_{kind} {value}"] = fastest(lambda r=run: r(lens, cu, over, forced, out)), 0  # type: ignore[misc]
    lists = step.build(compact(HEADS))
    idx, cnt = step.array(np.zeros(shape, np.int32)), step.array(np.zeros(shape[:2], np.int32))
    made["compact_blocks"] = fastest(lambda: lists(out, idx, cnt)), 0
    lines = [step.tensor(1, HEADS, step.tokens) for _ in range(2)]
    best = step.build(line_blocks(LineBlockSpec("lines", HEADS, (1000, 6096), (30, 100))))
    made["line_blocks 1000, 6096"] = fastest(lambda: best(lens, cu, *lines, forced, out)), 0
    single = step.build(line_tokens(LineTokenSpec((1000,) * HEADS, 30)))
    ids = step.array(np.zeros((step.rows, HEADS, 1000), np.int32))
    made["line_tokens 1000"] = fastest(lambda: single(lens, cu, lines[0], forced, ids, cnt)), 0
    return made


def decoding(step: Step) -> tuple[float, dict[str, float]]:
    """Seconds of dense attention of one token after the others, and of what chooses pages for it from kept bounds."""
    import numpy as np

    from fretsaw.backends.tvm.kernels import key_bounds
    from fretsaw.backends.tvm.kernels.attention import AttentionSpec, attention

    isa, pages = step.isa, KV_HEADS * step.width
    table, _, _ = step.geometry()
    lens = step.array(np.full((1, 1, KV_HEADS), step.tokens - 1, np.int32))
    cu = step.array(np.array([0, 1], np.int32))
    q, keys, values = step.tensor(1, HEADS, SIZE), step.tensor(pages, SIZE, BLOCK), step.tensor(pages, BLOCK, SIZE)
    out, over = step.tensor(1, HEADS * SIZE), step.tensor(3, HEADS, step.width)
    bounds = step.tensor(pages, 2 * SIZE)
    run = step.build(attention(AttentionSpec(HEADS, KV_HEADS, SIZE, isa)))
    spec = key_bounds.KeyBoundSpec(KV_HEADS, SIZE, isa, HEADS, SCALE)
    keep, score = step.build(key_bounds.keep_bounds(spec)), step.build(key_bounds.stored_bound_scores(spec))
    whole = fastest(lambda: run(q, keys, values, table, lens, cu, out, 0))
    return whole, {
        "keep_bounds": fastest(lambda: keep(keys, table, lens, cu, bounds, 0)),
        "stored_bound_scores": fastest(lambda: score(table, lens, cu, bounds, q, 0, over)),
    }


def main() -> None:
    """Print a line per kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=int, nargs="?", default=8192, help="a multiple of 64")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(options.threads)  # read when TVM loads
    from fretsaw.tools.bench.attention import machine_isa
    from fretsaw.tools.bench.probes import fma_peak

    step = Step(options.tokens, machine_isa())
    whole, probe = dense(step), fma_peak(options.threads, 2)
    speed = 2e-9 * SIZE * HEADS * options.tokens * (options.tokens + 1) / whole
    print(f"{options.tokens} tokens, {step.isa.name}, {options.threads} threads, probe {probe:.0f} GFLOP/s")
    print(f"{'dense attention':32} {1e3 * whole:10.2f} ms          {speed:6.1f} GFLOP/s")
    for name, (seconds, flops) in {**scores(step), **masks(step)}.items():
        rate = f"{1e-9 * flops / seconds:6.1f} GFLOP/s" if flops else ""
        print(f"{name:32} {1e3 * seconds:10.2f} ms {100 * seconds / whole:6.2f} % {rate}")
    one, bounds = decoding(step)
    print(f"{'dense attention, one token':32} {1e3 * one:10.3f} ms")
    for name, seconds in bounds.items():
        print(f"{name:32} {1e3 * seconds:10.3f} ms {100 * seconds / one:6.2f} %")


if __name__ == "__main__":
    main()
