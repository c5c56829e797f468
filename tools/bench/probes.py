"""What this machine can do: f32 FMA peak and memory read bandwidth, from compiled C, per run.

Virtual machines share their host, so a speed is only worth something beside a probe taken in the same
minute. Both probes run one thread per core and report the best of several rounds.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

_SOURCE = r"""
#include <immintrin.h>
#include <stddef.h>
/* Twelve independent chains of fused multiply-adds: enough to hide their latency on two ports. */
float fma_chains(long rounds) {
#ifdef __AVX512F__
#define V __m512
#define SET _mm512_set1_ps
#define FMA _mm512_fmadd_ps
#define SUM(v) _mm512_reduce_add_ps(v)
#else
#define V __m256
#define SET _mm256_set1_ps
#define FMA _mm256_fmadd_ps
#define SUM(v) _mm256_cvtss_f32(v)
#endif
  V x = SET(0.999f), y = SET(1e-3f);
#define ALL(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11)
#define START(i) V a##i = SET((float)i);
#define STEP(i) a##i = FMA(a##i, x, y);
#define ADD(i) s += SUM(a##i);
  ALL(START)
  for (long r = 0; r < rounds; ++r) { ALL(STEP) }
  float s = 0;
  ALL(ADD)
  return s;
}
/* Reads n floats (a multiple of 128) as eight interleaved streams: one stream alone leaves the memory idle. */
float read_all(const float* p, size_t n) {
  __m256 s[8];
  for (int i = 0; i < 8; ++i) s[i] = _mm256_setzero_ps();
  size_t part = n / 8;
  for (size_t i = 0; i + 16 <= part; i += 16)
    for (int q = 0; q < 8; ++q) {
      s[q] = _mm256_add_ps(s[q], _mm256_loadu_ps(p + q * part + i));
      s[q] = _mm256_add_ps(s[q], _mm256_loadu_ps(p + q * part + i + 8));
    }
  for (int i = 1; i < 8; ++i) s[0] = _mm256_add_ps(s[0], s[i]);
  return _mm256_cvtss_f32(s[0]);
}
"""


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    """Compile the probes for this machine with the C compiler."""
    folder = Path(tempfile.mkdtemp(prefix="fretsaw-probe-"))
    (folder / "probe.c").write_text(_SOURCE)
    out = folder / "probe.so"
    flags = ["-O3", "-march=native", "-shared", "-fPIC", "-funroll-loops"]
    subprocess.run(["cc", *flags, str(folder / "probe.c"), "-o", str(out)], check=True)
    lib = ctypes.CDLL(str(out))
    lib.fma_chains.argtypes, lib.fma_chains.restype = [ctypes.c_long], ctypes.c_float
    lib.read_all.argtypes, lib.read_all.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_float
    return lib


def _all_threads(work: Callable[[int], object], threads: int) -> float:
    """Run ``work(i)`` on each thread at once and return the seconds until the last has ended."""
    gate = threading.Barrier(threads + 1)

    def run(i: int) -> None:
        gate.wait()
        work(i)

    pool = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for t in pool:
        t.start()
    gate.wait()
    start = time.perf_counter()
    for t in pool:
        t.join()
    return time.perf_counter() - start


def fma_peak(threads: int, rounds: int = 5) -> float:
    """Return the f32 GFLOP/s that ``threads`` cores reach in register-only fused multiply-adds."""
    lib = _library()
    lanes = 16 if "avx512f" in Path("/proc/cpuinfo").read_text() else 8
    steps = 5_000_000
    best = min(_all_threads(lambda _: lib.fma_chains(steps), threads) for _ in range(rounds))
    return 2.0 * lanes * 12 * steps * threads / best / 1e9


def read_bandwidth(threads: int, mib: int = 256, rounds: int = 5) -> float:
    """Return the GB/s at which ``threads`` cores together read ``mib`` MiB that no cache holds."""
    lib = _library()
    data = np.ones(mib * 2**20 // 4, dtype=np.float32)
    part = data.size // threads // 128 * 128
    base, passes = data.ctypes.data, 4  # several passes: starting the threads is then lost in the time

    def work(i: int) -> None:
        for _ in range(passes):
            lib.read_all(base + 4 * i * part, part)

    best = min(_all_threads(work, threads) for _ in range(rounds))
    return 4.0 * part * threads * passes / best / 1e9
