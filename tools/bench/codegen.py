"""What compiling each kernel of a checkpoint costs: python -m fretsaw.tools.bench.codegen CHECKPOINT [--default].

A row per kernel and instruction set: lines of TIR, CPU seconds to write it in Python, to lower it by our passes and to
compile it by LLVM, and bytes of its object. With ``--default`` also the CPU seconds that TVM's default pipeline takes,
up to LLVM's optimizer. Nothing is taken from the cache.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import tvm

from fretsaw.backends.program.plan import plan
from fretsaw.backends.program.steps import KernelSpec
from fretsaw.backends.tvm.codegen.lower import compile_object, lower
from fretsaw.backends.tvm.codegen.objects import kernel_from
from fretsaw.backends.tvm.kernels.isa import V3, V4, Isa
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.backends.tvm.registry import build_kernel
from fretsaw.frontend.capture import capture
from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.passes.pipeline import run_pipeline


@dataclass(frozen=True)
class Row:
    """CPU seconds and sizes of one kernel."""

    kernel: str
    isa: str
    lines: int
    write: float
    lower: float
    llvm: float
    nbytes: int
    default: float | None


def cpu(work: Callable[[], object]) -> tuple[float, object]:
    """CPU seconds of ``work``, and what it gives."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def measure(spec: KernelSpec, isa: Isa, default: bool) -> Row:
    """Compile one kernel, phase by phase."""
    write, func = cpu(lambda: build_kernel(spec, isa))
    kernel = kernel_from(func, isa)
    module = tvm.IRModule({kernel.name: func})
    lowered, _ = cpu(lambda: lower(module, isa))
    whole, code = cpu(lambda: compile_object(kernel.func, isa))
    assert isinstance(code, bytes)
    theirs = cpu(lambda: tvm.compile(module, target=tvm.target.Target(dict(isa.target))))[0] if default else None
    return Row(kernel.name, isa.name, kernel.lines, write, lowered, max(0.0, whole - lowered), len(code), theirs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--default", action="store_true", help="also time TVM's default pipeline")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    graph = run_pipeline(capture(load_checkpoint(args.checkpoint))).graph
    specs = dict.fromkeys(launch.spec for launch in plan(graph, TvmOptions()).launches)
    rows = [measure(spec, isa, args.default) for spec in specs for isa in (V3, V4)]
    print(f"{'kernel':<28} {'isa':<10} {'TIR':>6} {'write':>6} {'lower':>6} {'LLVM':>6} {'bytes':>7}  default")
    for r in sorted(rows, key=lambda r: -(r.write + r.lower + r.llvm)):
        theirs = "" if r.default is None else f"{r.default:7.2f}"
        times = f"{r.write:6.2f} {r.lower:6.2f} {r.llvm:6.2f}"
        print(f"{r.kernel:<28} {r.isa:<10} {r.lines:6} {times} {r.nbytes:7}  {theirs}")
    total = sum(r.write + r.lower + r.llvm for r in rows)
    print(f"{len(rows)} kernels, {total:.1f} CPU seconds", end="")
    print(f", by TVM's default pipeline {sum(r.default or 0 for r in rows):.1f}" if args.default else "")
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
