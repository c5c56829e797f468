"""A long churn of requests over tiny weights: memory must stay flat. Samples resident memory and KV pages, and plots.

    python -m fretsaw.tools.bench.churn --requests 200000 [--plot docs/img/churn.svg] [--json out.json]

Compiles a Llama of two small layers, then submits requests of mixed lengths without pause: some share prefixes, some
are cancelled, some run out of time, some can never fit. Fails if a page is left behind at the end, or if the last
third of the samples has a median of resident memory more than 2 MiB above that of the middle third.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from fretsaw.runtime import Batch, BatchOptions, Model, Request, RuntimeFailure

MIB = 1 << 20
SLACK = 2 * MIB
SAMPLES = 400


@dataclass(frozen=True)
class Sample:
    """State after ``ended`` requests: seconds since the start, resident bytes, KV pages of running sequences."""

    ended: int
    seconds: float
    resident: int
    used_pages: int


def tiny_artifact(folder: Path) -> Path:
    """A compiled Llama of random weights, 64 wide; made in a process of its own, which takes the compiler's memory."""
    process = multiprocessing.get_context("spawn").Process(target=_compile, args=(folder,))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit("compiling failed")
    return folder / "tiny.fsaw"


def _compile(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from fretsaw.tools.chosen_backend import choose
    from fretsaw.tools.compiler import CompileOptions, compile_checkpoint
    from fretsaw.tools.reporter import Reporter

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    options = CompileOptions(choose("cpu:chunk_tokens=128"))
    compile_checkpoint(folder / "model", folder / "tiny.fsaw", options, Reporter())


def resident() -> int:
    """Resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Traffic:
    """Random requests; a third of them begin with one of a few prefixes."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.prefixes = [self.ids(48) for _ in range(8)]

    def ids(self, count: int) -> list[int]:
        """Random ids."""
        return [self.rng.randrange(3, 512) for _ in range(count)]

    def request(self) -> Request:
        """The next one."""
        rng = self.rng
        prompt = self.ids(round(4 * 32 ** rng.random()))
        if rng.random() < 1 / 3:
            prompt = rng.choice(self.prefixes) + prompt
        if rng.random() < 0.01:
            prompt = self.ids(600)  # over the context
        late = rng.random() < 0.05
        return Request(prompt, 1 + rng.randrange(12), ignore_eos=True, timeout=0.002 if late else None)


def churn(artifact: Path, requests: int, threads: int) -> tuple[list[Sample], dict[str, int]]:
    """Samples over the run, and how requests ended."""
    traffic, samples, ends = Traffic(0), list[Sample](), dict[str, int]()
    every = max(1, requests // SAMPLES)
    start = time.monotonic()
    with Model(artifact, threads=threads) as model, Batch(model, BatchOptions(kv_bytes=4 * MIB)) as batch:
        ended = in_flight = 0
        while ended < requests:
            while in_flight < 128 and ended + in_flight < requests:
                try:
                    id = batch.submit(traffic.request())
                except RuntimeFailure as failure:
                    ends[failure.status] = ends.get(failure.status, 0) + 1
                    ended += 1
                    continue
                in_flight += 1
                if traffic.rng.random() < 0.05:
                    batch.cancel(id)
            batch.step()
            while (taken := batch.take()) is not None:
                kind = taken[1].finish if taken[1].error is None else taken[1].error.status
                ends[kind] = ends.get(kind, 0) + 1
                in_flight, ended = in_flight - 1, ended + 1
            if ended >= (len(samples) + 1) * every:
                samples.append(Sample(ended, time.monotonic() - start, resident(), batch.stats()["used_pages"]))
        stats = batch.stats()
    if stats["used_pages"] or stats["running"] or stats["waiting"]:
        raise SystemExit(f"something is left behind: {stats}")
    return samples, ends


def plot(samples: list[Sample]) -> str:
    """SVG of resident memory and pages over requests."""
    width, height, left, right, gap = 640, 130, 60, 20, 40
    panels = (
        ("resident memory, MiB", [s.resident / MIB for s in samples]),
        ("KV pages in use", [float(s.used_pages) for s in samples]),
    )
    last = samples[-1].ended
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {2 * (height + gap) + 20}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for i, (label, values) in enumerate(panels):
        top, most = gap // 2 + i * (height + gap), max(values) * 1.1
        points = " ".join(
            f"{left + (width - left - right) * s.ended / last:.1f},{top + height * (1 - v / most):.1f}"
            for s, v in zip(samples, values, strict=True)
        )
        out += [
            f'<text x="{left}" y="{top - 5}">{label}</text>',
            f'<rect x="{left}" y="{top}" width="{width - left - right}" height="{height}" fill="none" stroke="#999"/>',
            f'<text x="{left - 6}" y="{top + height}" text-anchor="end">0</text>',
            f'<text x="{left - 6}" y="{top + height * (1 - max(values) / most):.0f}" text-anchor="end">'
            f"{max(values):,.0f}</text>",
            f'<polyline points="{points}" fill="none" stroke="#1f5fa8"/>',
        ]
    bottom = 2 * (height + gap) - gap // 2 + 16
    out += [
        f'<text x="{left}" y="{bottom}">0</text>',
        f'<text x="{width - right}" y="{bottom}" text-anchor="end">{last:,} requests ended</text>',
        "</svg>",
    ]
    return "\n".join(out) + "\n"


def main() -> None:
    """Churn, judge, plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--artifact", type=Path, help="a compiled tiny model; default: one is made")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        artifact = args.artifact or tiny_artifact(Path(name))
        samples, ends = churn(artifact, args.requests, args.threads)
    third = len(samples) // 3
    middle = statistics.median(s.resident for s in samples[third : 2 * third])
    last = statistics.median(s.resident for s in samples[2 * third :])
    print(f"{samples[-1].ended} requests in {samples[-1].seconds:.0f} s: {ends}")
    print(
        f"resident memory: {middle / MIB:.1f} MiB in the middle third, {last / MIB:.1f} MiB in the last; no page left"
    )
    if args.json:
        args.json.write_text(json.dumps({"ends": ends, "samples": [asdict(s) for s in samples]}))
    if args.plot:
        args.plot.write_text(plot(samples))
    if last > middle + SLACK:
        raise SystemExit("memory grows")


if __name__ == "__main__":
    main()
