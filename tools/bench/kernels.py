"""Time the kernels at SmolLM2-135M's shapes beside probes of the machine: python -m fretsaw.tools.bench.kernels."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

# TVM takes half the logical cores, counting them as hyper-threads, unless it is told before it loads.
os.environ.setdefault("TVM_NUM_THREADS", sys.argv[1] if len(sys.argv) > 1 else "2")
from functools import partial
from pathlib import Path

import numpy as np
import tvm
from tvm import tirx

from fretsaw.backends.program.codes import Grouped
from fretsaw.backends.program.specs.layers import EmbeddingSpec, NormSpec
from fretsaw.backends.program.specs.moe import RouteSpec
from fretsaw.backends.tvm.codegen.link import load_kernel
from fretsaw.backends.tvm.codegen.lower import compile_object
from fretsaw.backends.tvm.codegen.objects import kernel_from
from fretsaw.backends.tvm.kernels.attention import AttentionSpec, attention
from fretsaw.backends.tvm.kernels.embedding import embedding
from fretsaw.backends.tvm.kernels.epilogue import Epilogue, Glu
from fretsaw.backends.tvm.kernels.gemm import GemmSpec, gemm
from fretsaw.backends.tvm.kernels.isa import V3, V4, Isa
from fretsaw.backends.tvm.kernels.moe import GroupedSpec, grouped_gemm
from fretsaw.backends.tvm.kernels.norm import norm
from fretsaw.backends.tvm.kernels.rope import RopeSpec, rope
from fretsaw.backends.tvm.kernels.router import route, sort_by_expert
from fretsaw.tools.bench.probes import fma_peak, read_bandwidth


def build(func: tirx.PrimFunc, isa: Isa) -> Callable[..., object]:
    """Compile one kernel."""
    kernel = kernel_from(func, isa)
    call: Callable[..., object] = load_kernel(kernel.name, compile_object(func, isa))
    return call


def best(call: Callable[[], object], rounds: int = 15) -> float:
    """Return the seconds of the fastest of several calls."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def zeros(*shape: int, dtype: str = "float32") -> object:
    """Return a tensor of ones: zeros would be faster than real data on some machines."""
    return tvm.runtime.tensor(np.ones(shape, dtype))


def bench_gemm(isa: Isa, threads: int) -> None:
    """Print GEMM at 512 rows beside the FMA peak, and GEMV beside the read bandwidth."""
    for label, n, k, glu in (("qkv", 960, 576, None), ("gate_up", 1536, 576, Glu()), ("down", 576, 1536, None)):
        for weight, storage in (("float32", "float32"), ("float16", "float16"), ("bfloat16", "uint16")):
            spec = GemmSpec(n, k, isa, weight, Epilogue(glu=glu))
            run, w = build(gemm(spec), isa), zeros(spec.panels, k, 16, dtype=storage)
            x, out = zeros(512, k), zeros(512, n)
            peak = fma_peak(threads, 2)
            speed = 2e-9 * 512 * spec.panels * 16 * k / best(partial(run, x, w, out))
            print(f"{label:8} {weight:9} T=512 {speed:6.1f} GFLOP/s, probe {peak:6.1f}, ratio {speed / peak:.2f}")
    spec = GemmSpec(49152, 576, isa)
    run, w, x, out = build(gemm(spec), isa), zeros(spec.panels, 576, 16), zeros(1, 576), zeros(1, 49152)
    band = read_bandwidth(threads, rounds=3)
    speed = 4e-9 * 49152 * 576 / best(lambda: run(x, w, out))
    print(f"head     float32   T=1   {speed:6.1f} GB/s,     probe {band:6.1f}, ratio {speed / band:.2f}")


def bench_codes(isa: Isa, threads: int) -> None:
    """Print products over weights in codes: of one row in bytes of weights a second, of 512 rows beside f32 weights."""
    band = read_bandwidth(threads, rounds=3)
    for bits, group in ((8, 32), (4, 32), (4, 64), (3, 32), (2, 32)):
        how = Grouped(bits, group)
        spec = GemmSpec(49152, 576, isa, how)
        shape = how.shape(spec.panels, 576)
        run, w, x, out = build(gemm(spec), isa), zeros(*shape, dtype="int32"), zeros(1, 576), zeros(1, 49152)
        speed = 4e-9 * float(np.prod(shape)) / best(lambda: run(x, w, out))  # noqa: B023
        print(f"head     u{bits}_g{group:<4}  T=1   {speed:6.1f} GB/s,     probe {band:6.1f}, ratio {speed / band:.2f}")
        peak = fma_peak(threads, 2)
        for t in (8, 512):
            spec = GemmSpec(1536, 576, isa, how, Epilogue(glu=Glu()))
            run, w = build(gemm(spec), isa), zeros(*how.shape(spec.panels, 576), dtype="int32")
            speed = 2e-9 * t * spec.panels * 16 * 576 / best(partial(run, zeros(t, 576), w, zeros(t, 1536)))
            print(f"gate_up  u{bits}_g{group:<4}  T={t:<3} {speed:6.1f} GFLOP/s, probe {peak:6.1f}, "
                  f"ratio {speed / peak:.2f}")  # fmt: skip


def bench_few_rows(isa: Isa, threads: int, copies: int = 24) -> None:
    """Print a product of few rows, as decoding many sequences has it, beside the least time for its weights and FMAs.

    Calls go through ``copies`` matrices, together larger than the caches.
    """
    n, k = 1536, 576
    spec = GemmSpec(n, k, isa, epilogue=Epilogue(glu=Glu()))
    run, weights = build(gemm(spec), isa), [zeros(spec.panels, k, 16) for _ in range(copies)]
    size = copies * spec.panels * 16 * k
    for rows in (1, 2, 4, 8, 16, 32, 64):
        x, out = zeros(rows, k), zeros(rows, n)

        def call() -> None:
            for w in weights:
                run(x, w, out)  # noqa: B023  called before the loop goes on

        seconds = best(call, 7)
        band, peak = read_bandwidth(threads, rounds=2), fma_peak(threads, 2)
        least = max(4e-9 * size / band, 2e-9 * rows * size / peak)
        print(f"gate_up  T={rows:3} {2e-9 * rows * size / seconds:6.1f} GFLOP/s, {4e-9 * size / seconds:5.1f} GB/s, "
              f"least time {least / seconds:.2f} of it")  # fmt: skip


def bench_attention(isa: Isa, threads: int, page: int) -> None:
    """Print causal prefill beside the FMA peak, and decode in GB/s of keys and values."""
    run = build(attention(AttentionSpec(9, 3, 64, isa, page=page)), isa)
    for tokens, before in ((512, 0), (2048, 0), (1, 511), (1, 7999)):
        pages = -(-(before + tokens) // page)
        table = tvm.runtime.tensor(np.arange(3 * pages, dtype=np.int32).reshape(1, 1, 3, pages))
        lens = tvm.runtime.tensor(np.full((1, 1, 3), before, np.int32))
        cu = tvm.runtime.tensor(np.array([0, tokens], np.int32))
        args = [zeros(tokens, 9, 64), zeros(3 * pages, 64, page), zeros(3 * pages, page, 64), table, lens, cu]
        out = zeros(tokens, 576)
        peak = fma_peak(threads, 2)
        seconds = best(partial(run, *args, out, 0))
        if tokens > 1:
            speed = 2e-9 * 64 * 9 * tokens * (tokens + 1) / seconds
            print(f"prefill {tokens:5} page {page} {speed:6.1f} GFLOP/s, probe {peak:6.1f}, ratio {speed / peak:.2f}")
        else:
            print(f"decode at {before + 1:5} page {page} {2 * 4e-9 * 64 * 3 * (before + 1) / seconds:6.1f} GB/s")


def bench_rows(isa: Isa, threads: int, tokens: int = 512, width: int = 576) -> None:
    """Print kernels that move rows in GB/s read and written; they mostly hit the caches."""
    x, gain, out = zeros(tokens, width), zeros(width), zeros(tokens, width)
    heads, angles = zeros(tokens, 9, 64), zeros(tokens, 32)
    ids, table = zeros(tokens, dtype="int32"), zeros(49152 // 16, width, 16)
    calls: dict[str, Callable[[], object]] = {
        "norm": partial(build(norm(NormSpec(width, 1e-5), isa), isa), x, gain, out),
        "rope": partial(build(rope(RopeSpec(9, 64, isa, rotary=64)), isa), heads, angles, angles, zeros(tokens, 9, 64)),
        "embedding": partial(build(embedding(EmbeddingSpec(49152, width), isa), isa), ids, table, out),
    }
    band = read_bandwidth(threads, rounds=3)
    for label, call in calls.items():
        speed = 8e-9 * tokens * width / best(call)
        print(f"{label:9} T={tokens} {speed:6.1f} GB/s, memory probe {band:5.1f}")


def bench_experts(isa: Isa, threads: int, tokens: int = 512) -> None:
    """Print the choice of 2 of 8 experts, its sort, and the grouped GEMM of the pairs beside the FMA peak."""
    experts, slots, n, k = 8, 2, 1536, 576
    logits = tvm.runtime.tensor(np.random.default_rng(0).standard_normal((tokens, experts)).astype(np.float32))
    index, weight = zeros(tokens, slots, dtype="int32"), zeros(tokens, slots)
    choose = partial(build(route(RouteSpec(experts, slots), isa), isa), logits, index, weight)
    offsets, order = zeros(experts + 1, dtype="int32"), zeros(tokens * slots, dtype="int32")
    sort = partial(build(sort_by_expert(experts, slots), isa), index, offsets, order)
    spec = GroupedSpec(experts, n, k, isa, gather=slots)
    args = zeros(tokens, k), offsets, order, zeros(experts, -(-n // 16), k, 16), zeros(tokens * slots, n)
    multiply = partial(build(grouped_gemm(spec), isa), *args)
    print(f"route     T={tokens} {1e6 * best(choose):6.1f} us;  sort {1e6 * best(sort):.1f} us")
    peak = fma_peak(threads, 2)
    speed = 2e-9 * tokens * slots * n * k / best(multiply)
    print(f"experts   T={tokens} {speed:6.1f} GFLOP/s, probe {peak:6.1f}, ratio {speed / peak:.2f}")


def main() -> None:
    """Run all benchmarks with the given number of threads."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    isa = V4 if "avx512f" in Path("/proc/cpuinfo").read_text() else V3
    print(f"{isa.name}, {threads} threads, read bandwidth {read_bandwidth(threads):.1f} GB/s")
    bench_gemm(isa, threads)
    bench_codes(isa, threads)
    bench_few_rows(isa, threads)
    bench_rows(isa, threads)
    bench_experts(isa, threads)
    for page in (32, 64):
        bench_attention(isa, threads, page)


if __name__ == "__main__":
    main()
