"""Many requests at once against one by one, and how long a short request waits behind a long prompt.

    python -m fretsaw.tools.bench.batching --artifact smollm2.fsaw [--requests 64] [--threads 2] [--json out.json]

Both runs are ``fretsaw-run --batch`` on the same lines, in separate processes that take turns; one by one is the same
with ``--max-sequences 1``. Prompts have 16 to 2,000 tokens and answers 8 to 256, spread evenly over the logarithm
(``--spread log``) or evenly (``--spread even``), answers in their own way with ``--answers``; ids are random and
generation goes on past the end of sequence, so that both runs do the same work. Loading is not counted.

For the wait, one process reads lines from a pipe. It gets a prompt of 2,000 tokens and, half a chunk later, one of 16;
the time from writing that line to reading its result is divided by the time of a chunk (the 2,000 tokens alone, over
the number of chunks' worth in them).

With ``--peers PYTHON --peer NAME=MODEL`` (repeated) the same requests go to ``batch_peers.py`` instead of one by one.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fretsaw.tools.bench.batch_limits import bounds
from fretsaw.tools.bench.probes import fma_peak, read_bandwidth
from fretsaw.tools.native import native_file

Request = dict[str, object]
LONG, SHORT = 2000, 16


@dataclass(frozen=True)
class Setup:
    """What every process of the benchmark is given."""

    artifact: Path
    threads: int
    kv_memory: str
    vocab: int

    def command(self, source: str, out: Path, *more: str) -> list[str]:
        """``fretsaw-run --batch`` with these options."""
        own = ["--threads", str(self.threads), "--kv-memory", self.kv_memory, "--quiet", "--ignore-eos"]
        return [str(native_file("fretsaw-run")), str(self.artifact), "--batch", source, "--out", str(out), *own, *more]


def spread(low: int, high: int, count: int, kind: str, rng: random.Random) -> list[int]:
    """``count`` whole numbers from ``low`` to ``high``, both among them, shuffled."""
    steps = [i / max(1, count - 1) for i in range(count)]
    values = [low + (high - low) * s if kind == "even" else low * (high / low) ** s for s in steps]
    rng.shuffle(values)
    return [round(v) for v in values]


def make(setup: Setup, prompt: int, new: int, rng: random.Random) -> Request:
    """One request of random ids."""
    return {"ids": [rng.randrange(10, setup.vocab) for _ in range(prompt)], "max_new_tokens": new}


def throughput(setup: Setup, requests: list[Request], folder: Path, repeat: int) -> dict[str, list[dict[str, object]]]:
    """Summaries of ``repeat`` runs of each kind; checks that both gave the same tokens."""
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in requests))
    kinds: dict[str, list[str]] = {"batched": [], "one by one": ["--max-sequences", "1"]}
    runs: dict[str, list[dict[str, object]]] = {kind: [] for kind in kinds}
    tokens: dict[str, list[list[int]]] = {}
    for i in range(repeat):
        for kind, more in kinds.items():
            out = folder / f"{kind}-{i}.jsonl"
            done = subprocess.run(
                setup.command(str(source), out, "--json", *more), capture_output=True, text=True, check=True
            )
            runs[kind].append(json.loads(done.stdout))
            print(f"  {kind}: {seconds(runs[kind][-1]):.1f} s, {rate(runs[kind][-1]):.1f} tok/s", flush=True)
            tokens[kind] = [json.loads(line)["tokens"] for line in out.read_text().splitlines()]
    if tokens["batched"] != tokens["one by one"]:
        raise SystemExit("batched and one by one gave different tokens")
    return runs


def wait_for(out: Path, line: int, until: float) -> tuple[float, dict[str, object]]:
    """When the result of ``line`` was there, and the result; early results are in the journal."""
    while time.perf_counter() < until:
        for path in (out, out.with_name(out.name + ".journal")):
            for text in path.read_text().splitlines(keepends=True) if path.exists() else []:
                if text.startswith(f'{{"line":{line},') and text.endswith("\n"):
                    return time.perf_counter(), json.loads(text)
        time.sleep(0.001)
    raise SystemExit(f"no result for line {line}")


def first_token(setup: Setup, folder: Path, chunk: int, rng: random.Random) -> dict[str, float]:
    """Time to the first token of a short request behind a long one, ms, and the time of a chunk, ms."""

    def send(pipe: IO[str], request: Request) -> float:
        pipe.write(json.dumps(request) + "\n")
        pipe.flush()
        return time.perf_counter()

    out = folder / "wait.jsonl"
    with subprocess.Popen(setup.command("-", out), stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        until = time.perf_counter() + 300
        send(process.stdin, make(setup, 64, 1, rng))  # loads and warms up
        wait_for(out, 1, until)
        send(process.stdin, make(setup, LONG, 1, rng))
        _, alone = wait_for(out, 2, until)
        timing = alone["timing"]
        assert isinstance(timing, dict)
        chunk_ms = timing["total_ms"] * chunk / LONG
        send(process.stdin, make(setup, LONG, 1, rng))
        time.sleep(chunk_ms / 2000)
        sent = send(process.stdin, make(setup, SHORT, 1, rng))
        answered, _ = wait_for(out, 4, until)
        process.stdin.close()
    if process.returncode != 0:
        raise SystemExit(f"fretsaw-run ended with {process.returncode}")
    wait_ms = (answered - sent) * 1000
    return {"chunk_ms": chunk_ms, "first_token_ms": wait_ms, "chunks": wait_ms / chunk_ms}


def against(setup: Setup, requests: list[Request], folder: Path, python: Path, peers: list[str], repeat: int) -> None:
    """Print the rate of Fretsaw and of every peer on the same requests, in processes that take turns."""
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in requests))
    script = Path(__file__).with_name("batch_peers.py")
    for i in range(repeat):
        command = setup.command(str(source), folder / f"turn{i}.jsonl", "--json")
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        own = rate(json.loads(done.stdout))
        print(f"{'fretsaw':>18}: {own:8.1f} tok/s", flush=True)
        for peer in peers:
            name, model = peer.split("=", 1)
            command = [str(python), "-P", str(script), name, model, str(source), "--threads", str(setup.threads)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                print(f"{name:>18}: failed: {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            its = json.loads(done.stdout.strip().splitlines()[-1])["tok_s"]
            print(f"{name:>18}: {its:8.1f} tok/s, Fretsaw {own / its:.2f} times as fast", flush=True)


def seconds(run: dict[str, object]) -> float:
    """Seconds of a run."""
    timing = run["timing"]
    assert isinstance(timing, dict)
    return float(timing["total_ms"]) / 1000


def rate(run: dict[str, object]) -> float:
    """Tokens per second of a run, prompts and answers together."""
    timing = run["timing"]
    assert isinstance(timing, dict)
    return float(timing["tok_s"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="print what the machine allows; a dense Llama-like decoder")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--spread", choices=("log", "even"), default="log", help="of the lengths of prompts")
    parser.add_argument("--answers", choices=("log", "even"), help="of the lengths of answers; default: as --spread")
    parser.add_argument("--max-prompt", type=int, default=LONG)
    parser.add_argument("--max-new", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv-memory", default="4GB")
    parser.add_argument("--chunk", type=int, default=512, help="tokens of a step of this artifact")
    parser.add_argument("--vocab", type=int, default=49152, help="of the artifact")
    parser.add_argument("--peers", type=Path, help="Python of the peers' environment (peers.txt)")
    parser.add_argument("--peer", action="append", default=[], help="NAME=MODEL of batch_peers.py; none is one by one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="write the requests there, for batch_peers.py")
    args = parser.parse_args()
    rng = random.Random(0)
    setup = Setup(args.artifact, args.threads, args.kv_memory, args.vocab)
    prompts = spread(16, args.max_prompt, args.requests, args.spread, rng)
    answers = spread(8, args.max_new, args.requests, args.answers or args.spread, rng)
    requests = [make(setup, p, n, rng) for p, n in zip(prompts, answers, strict=True)]
    if args.checkpoint:
        config = json.loads((args.checkpoint / "config.json").read_text())
        peak, read = fma_peak(args.threads), read_bandwidth(args.threads)
        at = bounds(config, zip(prompts, answers, strict=True), peak, read)
        print(
            f"bounds at {peak:.0f} GFLOP/s and {read:.1f} GB/s: prompts {at.prompts:.1f} s; answers "
            f"{at.answers_alone:.1f} s one by one, {at.answers_together:.1f} s together; ratio {at.ratio:.2f}",
            flush=True,
        )
    if args.keep:
        args.keep.write_text("".join(json.dumps(r) + "\n" for r in requests))
    with tempfile.TemporaryDirectory() as name:
        if args.peer:
            against(setup, requests, Path(name), args.peers, args.peer, args.repeat)
            return
        wait = first_token(setup, Path(name), args.chunk, rng)
        print(
            f"first token of {SHORT} tokens behind {LONG}: {wait['first_token_ms']:.0f} ms = "
            f"{wait['chunks']:.2f} chunk times of {wait['chunk_ms']:.0f} ms",
            flush=True,
        )
        runs = throughput(setup, requests, Path(name), args.repeat)
    print(f"{args.requests} requests, {sum(prompts)} prompt and {sum(answers)} new tokens")
    medians = {kind: statistics.median(rate(run) for run in of_kind) for kind, of_kind in runs.items()}
    for kind, median in medians.items():
        print(f"{kind:>12}: {median:8.1f} tok/s, {seconds(runs[kind][0]):.1f} s, {runs[kind][0]['steps']} steps")
    ratio = medians["batched"] / medians["one by one"]
    print(f"{'ratio':>12}: {ratio:8.2f}")
    if args.json:
        args.json.write_text(json.dumps({"wait": wait, "runs": runs, "ratio": ratio}, indent=1))


if __name__ == "__main__":
    main()
