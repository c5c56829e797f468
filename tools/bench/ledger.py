"""What the ledger costs: seconds of each pass' check over the seconds of one forward pass of the same model.

    python -m fretsaw.tools.bench.ledger CHECKPOINT [--calib FILE] [--tokens 512] [--mode auto]

Prints one line per pass that changed the graph. The forward pass is the reference interpreter's, on the captured graph
and the same tokens, the best of three. The first graph's own run, which every later check starts from, has its own
line.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fretsaw.frontend.capture import capture
from fretsaw.frontend.checkpoint import Checkpoint, load_checkpoint
from fretsaw.ir import Graph, run
from fretsaw.passes.evidence.check import Checker, make_plan
from fretsaw.passes.evidence.feeds import feed, sequences
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.pipeline import PIPELINE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--calib", type=Path)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--mode", choices=["auto", "whole", "blocks"], default="auto")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.checkpoint)
    calib = tokens_of(checkpoint, arguments.calib) if arguments.calib else ()
    options = EvidenceOptions(calib=calib, tokens=arguments.tokens, mode=arguments.mode)
    phases = ("canonical", "fused") + (("packed",) if checkpoint.kind == "decoder" else ())
    measure(capture(checkpoint), options, phases)


def tokens_of(checkpoint: Checkpoint, path: Path) -> tuple[int, ...]:
    from tokenizers import Tokenizer

    assert checkpoint.tokenizer_json is not None
    return tuple(Tokenizer.from_str(checkpoint.tokenizer_json.decode()).encode(path.read_text(encoding="utf-8")).ids)


def measure(graph: Graph, options: EvidenceOptions, phases: tuple[str, ...]) -> None:
    """Print the table for one model."""
    calibration, _ = sequences(graph, options, options.tokens)
    unit = min(seconds(lambda: run(graph, feed(graph, calibration))) for _ in range(3))
    print(f"one forward pass, {calibration.ids.size} tokens: {unit:.2f} s")
    checker = Checker(options)
    start = time.perf_counter()
    checker._plan = make_plan(graph, options)
    print(f"{'first graph':24} {(time.perf_counter() - start) / unit:5.2f} forward passes")
    ratios: list[float] = []
    for phase in phases:
        for p in PIPELINE[phase]:
            after = p.run(graph).graph
            start = time.perf_counter()
            found = checker.check(p, graph, after)
            if found.get("changed"):
                ratios.append((time.perf_counter() - start) / unit)
                skipped = f"{found['blocks_skipped']} of {found['blocks']} blocks skipped"
                print(f"{p.name:24} {ratios[-1]:5.2f} forward passes   {p.keeps:8} {found['mode']}, {skipped}")
            graph = after
        graph = replace(graph, phase=phase)
    print(f"largest {max(ratios):.2f}, mean {sum(ratios) / len(ratios):.2f} over {len(ratios)} passes that changed it")
    print(f"memory bound {int(checker.summary()['memory_bound_bytes']) / 1e6:,.0f} MB")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
