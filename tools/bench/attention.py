"""Measure cached attention: python -m fretsaw.tools.bench.attention goal|storage|pages|balance [--threads N].

    goal      causal prefill of 2,048 tokens beside our GEMM and torch's scaled_dot_product_attention, each in processes
              of its own that take turns
    storage   f32, f16 and int8 caches: decode and prefill at 512, 2,048 and 8,192 tokens of context
    pages     page sizes: speed, and the memory that the last page of a row wastes on average
    balance   one sequence of 4,096 tokens beside 31 of one: speed of 2 threads over 1

Shapes are SmolLM2-135M's, 9 query heads over 3 of size 64, f32. Calls that are compared take turns, the best of each
counts. Only ratios within one run mean anything on a machine that others use.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

if TYPE_CHECKING:
    from fretsaw.backends.program.kv_storage import KvType
    from fretsaw.backends.tvm.kernels.isa import Isa

HEADS, KV_HEADS, SIZE, PAGE = 9, 3, 64, 64
TOKENS = 2048
Call = Callable[[], object]


def machine_isa() -> Isa:
    """The instruction set that this machine runs best."""
    from pathlib import Path

    from fretsaw.backends.tvm.kernels.isa import V3, V4

    return V4 if "avx512f" in Path("/proc/cpuinfo").read_text() else V3


class Attention:
    """A compiled kernel for one storage and page size, and calls of it."""

    def __init__(self, kv: KvType, page: int = PAGE) -> None:
        from fretsaw.backends.tvm.kernels.attention import AttentionSpec, attention
        from fretsaw.tools.bench.kernels import build

        self.kv, self.page, isa = kv, page, machine_isa()
        self.run = build(attention(AttentionSpec(HEADS, KV_HEADS, SIZE, isa, page=page, kv=kv)), isa)

    def call(self, before: Sequence[int], counts: Sequence[int]) -> Call:
        """A step of ``counts`` tokens after ``before`` cached ones, with random contents."""
        import numpy as np
        import tvm

        from fretsaw.backends.program.kv_storage import store_rows

        rng, b = np.random.default_rng(0), len(counts)
        pages = [-(-(x + n) // self.page) for x, n in zip(before, counts, strict=True)]
        table = np.zeros((1, b, KV_HEADS, max(pages)), np.int32)
        order = iter(rng.permutation(sum(pages) * KV_HEADS))
        for i, own in enumerate(pages):
            for h in range(KV_HEADS):
                table[0, i, h, :own] = [next(order) for _ in range(own)]
        rows = rng.standard_normal((self.page, SIZE)).astype(np.float32)
        pools = [
            np.repeat(store_rows(rows, self.kv, transpose=t)[None], sum(pages) * KV_HEADS, 0) for t in (True, False)
        ]
        q = rng.standard_normal((sum(counts), HEADS, SIZE)).astype(np.float32)
        lens = np.repeat(np.array(before, np.int32), KV_HEADS).reshape(1, b, KV_HEADS)
        cu = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        arrays = [q, *pools, table, lens, cu, np.zeros((len(q), HEADS * SIZE), np.float32)]
        tensors = [tvm.runtime.tensor(a) for a in arrays]
        return lambda: self.run(*tensors, 0)


def alternate(calls: dict[str, Call], rounds: int = 15, least: float = 0.02) -> dict[str, float]:
    """Seconds of the fastest turn of each; a turn repeats a call until ``least`` seconds have gone by."""
    repeats, best = {}, dict.fromkeys(calls, float("inf"))
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(least / (time.perf_counter() - start)))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            best[name] = min(best[name], (time.perf_counter() - start) / repeats[name])
    return best


def causal_flops(tokens: int) -> float:
    """Multiplications and additions of the two products, of visible slots only."""
    return 2.0 * SIZE * HEADS * tokens * (tokens + 1)


def bench_storage() -> None:
    """Print a line per storage and shape."""
    from fretsaw.backends.program.kv_storage import KvType, row_bytes

    kernels = {kv: Attention(kv) for kv in get_args(KvType)}
    for context in (512, 2048, 8192):
        for label, before, count in (("decode", context - 1, 1), ("prefill", context - 512, 512)):
            best = alternate({str(kv): k.call([before], [count]) for kv, k in kernels.items()})
            for kv in kernels:
                seconds = best[kv]
                moved = 2 * KV_HEADS * context * row_bytes(SIZE, kv) / seconds / 1e9
                print(
                    f"{label:7} at {context:5} {kv:4} {1e6 * seconds:9.1f} us, {best['f32'] / seconds:5.2f} x f32"
                    + (f", {moved:5.1f} GB/s" if count == 1 else "")
                )


def bench_pages() -> None:
    """Print a line per page size; the calls of all sizes take turns."""
    sizes = (16, 32, 64, 128, 256)
    kernels = {page: Attention("f32", page) for page in sizes}
    shapes = {"decode 512": ([511], [1]), "decode 8192": ([8191], [1]), "8 x decode 500": ([499] * 8, [1] * 8),
              "prefill 512": ([0], [512]), "prefill 2048": ([0], [2048])}  # fmt: skip
    best = {name: alternate({str(p): k.call(*shape) for p, k in kernels.items()}) for name, shape in shapes.items()}
    for page in sizes:
        times = ", ".join(f"{name} {1e6 * times[str(page)]:.0f} us" for name, times in best.items())
        waste = (page - 1) / 2 * KV_HEADS * 2 * SIZE * 4 * 30
        print(f"page {page:3}: {times}; a sequence wastes {waste / 1e6:.2f} MB on average (30 layers, f32)")


def bench_balance() -> None:
    """Print how much two threads gain where one sequence is most of the work."""
    import tvm

    set_threads = tvm.get_global_func("runtime.config_threadpool")
    kernel = Attention("f32")
    shapes = {
        "decode, one at 4096 and 31 at 1": ([4095] + [0] * 31, [1] * 32),
        "prefill, one of 4096 and 31 of 1": ([0] * 32, [4096] + [1] * 31),
        "prefill, one of 4096 and 31 of 64": ([0] * 32, [4096] + [64] * 31),
        "prefill, 31 of 64 and one of 4096": ([0] * 32, [64] * 31 + [4096]),
        "prefill, 512 at 3584 and 31 at 1": ([3584] + [0] * 31, [512] + [1] * 31),
    }
    for name, shape in shapes.items():
        call = kernel.call(*shape)
        best: dict[int, float] = {}
        for _ in range(4):
            for threads in (1, 2):
                set_threads(1, threads)
                best[threads] = min(best.get(threads, float("inf")), alternate({"": call}, rounds=2)[""])
        print(f"{name}: {1e3 * best[1]:.2f} ms on one thread, {1e3 * best[2]:.2f} on two: x {best[1] / best[2]:.2f}")


def worker(which: str, threads: int) -> float:
    """Seconds of one engine, in a process of its own."""
    if which == "torch":
        return _torch_seconds(threads)
    if which == "attention":
        return alternate({"": Attention("f32").call([0], [TOKENS])}, rounds=5)[""]
    import numpy as np
    import tvm

    from fretsaw.backends.tvm.kernels.gemm import GemmSpec, gemm
    from fretsaw.tools.bench.kernels import build

    spec = GemmSpec(960, 576, machine_isa())
    run, shapes = build(gemm(spec), spec.isa), ((TOKENS, 576), (spec.panels, 576, 16), (TOKENS, 960))
    rng = np.random.default_rng(0)
    tensors = [tvm.runtime.tensor(rng.standard_normal(s).astype(np.float32)) for s in shapes]
    return alternate({"": lambda: run(*tensors)}, rounds=5)[""]


def _torch_seconds(threads: int) -> float:
    """The faster of grouped heads and keys that were repeated for each query head before."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attend

    torch.set_num_threads(threads)
    q = torch.randn(1, HEADS, TOKENS, SIZE)
    k, v = torch.randn(2, 1, KV_HEADS, TOKENS, SIZE)
    wide_k, wide_v = (x.repeat_interleave(HEADS // KV_HEADS, 1).contiguous() for x in (k, v))
    with torch.inference_mode():
        calls: dict[str, Call] = {
            "grouped": lambda: attend(q, k, v, is_causal=True, enable_gqa=True),
            "repeated": lambda: attend(q, wide_k, wide_v, is_causal=True),
        }
        return min(alternate(calls, rounds=5).values())


def bench_goal(threads: int, rounds: int = 5) -> None:
    """Print medians over processes that take turns."""
    times: dict[str, list[float]] = {"gemm": [], "attention": [], "torch": []}
    for _ in range(rounds):
        for which, found in times.items():
            command = [sys.executable, "-m", "fretsaw.tools.bench.attention", which, "--threads", str(threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout))
    seconds = {which: statistics.median(found) for which, found in times.items()}
    speed = {"gemm": 2e-9 * TOKENS * 960 * 576 / seconds["gemm"]}
    speed |= {which: 1e-9 * causal_flops(TOKENS) / seconds[which] for which in ("attention", "torch")}
    for which, value in speed.items():
        print(f"{which:9} {1e3 * seconds[which]:7.2f} ms, {value:6.1f} GFLOP/s")
    print(f"attention over gemm {speed['attention'] / speed['gemm']:.2f} (goal 0.60), "
          f"over torch {speed['attention'] / speed['torch']:.2f} (goal 1.20)")  # fmt: skip


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["goal", "storage", "pages", "balance", "gemm", "attention", "torch"])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(options.threads)  # read when TVM loads
    benches = {"storage": bench_storage, "pages": bench_pages, "balance": bench_balance}
    if options.what == "goal":
        bench_goal(options.threads)
    elif options.what in benches:
        benches[options.what]()
    else:
        print(json.dumps(worker(options.what, options.threads)))


if __name__ == "__main__":
    main()
