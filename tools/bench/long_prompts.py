"""Prompts beyond a model's context, end to end: sparse programs, our dense one, dense peers.

    python -m fretsaw.tools.bench.long_prompts CHECKPOINT --text TEXT --work DIR --tokens 8192,16384,32768
        --pass sparse_attention:method=mean_pool,blocks=16 [--pass ...] [--rope yarn|linear] [--chunk 512] [--rounds 1]
        [--peers PYTHON --peer transformers --peer openvino-genai=FILE.gguf --peer llama-server=FILE.gguf --server FILE]
        [--steps compile,bench,eval,report] [--json FILE]

The checkpoint is copied by links into DIR with a configuration whose rotary embedding is scaled to the longest prompt.
Everything is kept in DIR, and a run goes on where the one before stopped:

    compile  the dense program and one for every ``--pass``, with steps of the same size
    bench    seconds from the prompt to its first token: all programs in turn, then the peers, each in its own process
    eval     perplexity, KL divergence and agreement with the dense program, on ``--context`` tokens of the text
    report   table and JSON

A peer that failed at a length is not asked at longer ones.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fretsaw.tools.bench.long_peers import LLAMA_CONTEXT, Limits, Outcome, Peer, run_engine, run_llama
from fretsaw.tools.bench.models import onnx_folder
from fretsaw.tools.prefill import read_apart

ROOM = 64  # tokens of context after the longest prompt, for an answer
DENSE, OURS = "dense", "fretsaw"


def scaled_config(config: Mapping[str, Any], tokens: int, kind: str) -> dict[str, Any]:
    """A configuration for prompts of ``tokens`` tokens: positions scaled by tokens over the model's context.

    Raises:
        SystemExit: the model's positions are scaled already, or need not be.
    """
    own = int(config["max_position_embeddings"])
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if rope.get("rope_type", "default") != "default":
        raise SystemExit(f"the checkpoint has a rope type {rope['rope_type']} already")
    if tokens <= own:
        raise SystemExit(f"{tokens} tokens fit the context of {own}: nothing to scale")
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    scaled = {"rope_type": kind, "rope_theta": theta, "factor": tokens / own}
    if kind == "yarn":
        scaled["original_max_position_embeddings"] = own
    kept = {k: v for k, v in config.items() if k not in ("rope_scaling", "rope_theta")}
    return {**kept, "rope_parameters": scaled, "max_position_embeddings": tokens + ROOM}


def scaled_checkpoint(source: Path, folder: Path, tokens: int, kind: str) -> Path:
    """``source`` by links, with :func:`scaled_config`."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        link = folder / file.name
        if file.name != "config.json" and file.is_file() and not link.exists():
            link.symlink_to(file.resolve())
    config = scaled_config(json.loads((source / "config.json").read_text()), tokens, kind)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder


def name_of(ask: str) -> str:
    """A file name for what ``--pass`` asks: ``sparse_attention:method=hip,mask_k=512`` -> ``hip-mask_k-512``."""
    short = ask.removeprefix("sparse_attention:").removeprefix("method=")
    return re.sub(r"[^A-Za-z0-9_.]+", "-", short).strip("-")


class Kept:
    """Results by key, in a JSON file of the work folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def put(self, key: str, value: object) -> None:
        self.data[key] = value
        self.path.write_text(json.dumps(self.data, indent=1) + "\n")


def fretsaw(*args: str | Path) -> str:
    """The ``fretsaw`` command; its output.

    Raises:
        SystemExit: it failed; with what it said.
    """
    command = [sys.executable, "-m", "fretsaw.tools.cli", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


@dataclass(frozen=True)
class Program:
    """One artifact: the dense one, or that of a pass."""

    name: str
    path: Path
    ask: str = ""


def compile_all(checkpoint: Path, programs: Sequence[Program], chunk: int, cpu: str) -> None:
    """Artifacts that are not there yet, unchecked: they are measured on longer texts than a check would read."""
    for p in programs:
        if not p.path.exists():
            ask = ("--pass", p.ask) if p.ask else ()
            rest = ("--chunk", str(chunk), "--no-check", "--quiet", "--cpu", cpu)
            fretsaw("compile", checkpoint, "-o", p.path, *ask, *rest)


def bench_all(
    kept: Kept, programs: Sequence[Program], peers: Mapping[str, Peer], lengths: Sequence[int], rounds: int,
    text: Path, threads: int,
) -> None:  # fmt: skip
    """Readings that are missing, one process each."""
    for number in range(rounds):
        for tokens in sorted(lengths):
            for p in programs if number % 2 == 0 else programs[::-1]:
                key = f"{number}/{tokens}/{OURS}:{p.name}"
                if key not in kept.data:
                    reading = read_apart(p.path, tokens, 0, threads, text)
                    _note(kept, key, Outcome(1e-3 * reading.first_token_ms))
            for name, peer in peers.items():
                key = f"{number}/{tokens}/{name}"
                if key not in kept.data:
                    failed = failed_before(kept.data, name, tokens)
                    _note(kept, key, Outcome(None, failed) if failed else peer(tokens))


def _note(kept: Kept, key: str, outcome: Outcome) -> None:
    said = f"{outcome.seconds:.1f} s" if outcome.seconds is not None else outcome.why
    print(f"{key}: {said}", flush=True)
    kept.put(key, {"seconds": outcome.seconds, "why": outcome.why})


def failed_before(readings: Mapping[str, Any], name: str, tokens: int) -> str:
    """Why ``name`` need not be asked: it failed at a shorter prompt; empty if it did not."""
    for key, found in readings.items():
        _, length, who = key.split("/", 2)
        if who == name and int(length) < tokens and found["seconds"] is None:
            return f"failed at {length} tokens: {found['why']}"
    return ""


def eval_all(kept: Kept, programs: Sequence[Program], text: Path, context: int, windows: int) -> None:
    """Perplexity, divergence from the dense program and agreement with it."""
    dense = programs[0]
    for p in programs[1:]:
        key = f"{context}x{windows}/{p.name}"
        if key not in kept.data:
            shape = ("--context", str(context), "--limit", str(windows))
            kept.put(
                key, json.loads(fretsaw("eval", p.path, "--text", text, *shape, "--against", dense.path, "--json"))
            )


def medians(readings: Mapping[str, Any]) -> dict[str, dict[int, float | str]]:
    """Seconds by engine and length, medians over the rounds; the reason where there are none."""
    found: dict[str, dict[int, list[Any]]] = {}
    for key, reading in readings.items():
        _, tokens, name = key.split("/", 2)
        found.setdefault(name, {}).setdefault(int(tokens), []).append(reading)
    return {
        name: {
            tokens: next((r["why"] for r in some if r["seconds"] is None), None) or median(r["seconds"] for r in some)
            for tokens, some in by_length.items()
        }
        for name, by_length in found.items()
    }


def linear_part(seconds: Mapping[int, float]) -> float:
    """Seconds a token of what does not grow with the square of a dense prompt: least squares of a n + b n^2.

    Args:
        seconds: By length, at least two lengths.
    """
    n = np.array(sorted(seconds), float)
    t = np.array([seconds[int(x)] for x in n])
    a = np.stack([n, n * n], 1) / t[:, None]  # relative errors count the same at every length
    return float(np.linalg.lstsq(a, np.ones(len(n)), rcond=None)[0][0])


def report(readings: Mapping[str, Any], evals: Mapping[str, Any]) -> list[str]:
    """A table in Markdown: seconds, and in brackets how many times as long as our dense program; then the bound."""
    found = medians(readings)
    dense = {n: s for n, s in found.get(f"{OURS}:{DENSE}", {}).items() if isinstance(s, float)}
    lengths = sorted({n for by_length in found.values() for n in by_length})
    lines = ["| | " + " | ".join(f"{n:,}" for n in lengths) + " |", "|---" * (len(lengths) + 1) + "|"]
    for name, by_length in found.items():
        cells = (_cell(by_length.get(n, ""), dense.get(n)) for n in lengths)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if len(dense) > 1:
        longest, each = max(dense), linear_part(dense)
        most = dense[longest] / (each * longest)
        lines += ["", f"{1e3 * each:.3f} ms a token beside attention: at {longest:,} at most {most:.1f} times as fast"]

    for key, found_eval in evals.items():
        lines.append(f"{key}: KL {found_eval['kl_mean']:.4f}, top-1 {found_eval['top1_agreement']:.4f}")
    return lines


def _cell(seconds: float | str, dense: float | None) -> str:
    if isinstance(seconds, str):
        return seconds
    return f"{seconds:.1f} s" + (f" ({dense / seconds:.2f}x)" if dense else "")


def peers_of(given: argparse.Namespace, checkpoint: Path, limits: Limits) -> dict[str, Peer]:
    """What ``--peer`` names: an engine, and its model unless that is the scaled checkpoint."""
    config = json.loads((checkpoint / "config.json").read_text())
    rope = config["rope_parameters"]
    original = rope.get("original_max_position_embeddings", 0)
    context = -(-int(config["max_position_embeddings"]) // LLAMA_CONTEXT) * LLAMA_CONTEXT
    # llama.cpp cuts a context down to the scaled one, so the room after the prompt has to be scaled, too.
    scale = context / original if original else rope["factor"]
    scaling: tuple[str, ...] = ("--rope-scaling", rope["rope_type"], "--rope-scale", str(scale))
    scaling += ("--yarn-orig-ctx", str(original)) if original else ()
    scaling += ("--override-kv", f"{config['model_type']}.context_length=int:{context}")

    def peer(name: str, model: Path) -> Peer:
        if name == "llama-server":
            return lambda tokens: run_llama(given.server, model, tokens, limits, scaling)
        return lambda tokens: run_engine(given.peers, name, model, tokens, limits)

    made = {}
    for text in given.peer:
        name, _, model = text.partition("=")
        if name == "onnxruntime-genai" and not model:
            model = str(onnx_folder(given.peers, checkpoint, given.work / "onnx-f32"))
        made[name] = peer(name, Path(model) if model else checkpoint)
    return made


def numbers(text: str) -> tuple[int, ...]:
    """``8192,32768`` -> two numbers."""
    return tuple(int(n) for n in text.split(","))


def main(argv: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokens", type=numbers, default=(8192, 16384, 32768), help="prompts to time")
    parser.add_argument("--scale-to", type=int, default=32768, help="tokens that positions are scaled to")
    parser.add_argument("--rope", choices=("yarn", "linear"), default="yarn")
    parser.add_argument("--pass", dest="passes", action="append", default=[])
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--cpu", default="x86-64-v3")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=16384, help="tokens of a window to evaluate")
    parser.add_argument("--windows", type=int, default=1)
    parser.add_argument("--peers", type=Path, help="Python of the peers' environment")
    parser.add_argument("--peer", action="append", default=[], help="NAME or NAME=MODEL")
    parser.add_argument("--server", type=Path, default=Path("llama-server"))
    parser.add_argument("--limit", type=float, default=900, help="seconds of a peer")
    parser.add_argument("--memory", type=float, default=16, help="GiB of a peer")
    parser.add_argument("--steps", default="compile,bench,eval,report")
    parser.add_argument("--json", type=Path, dest="out")
    given = parser.parse_args(None if argv is None else list(argv))
    checkpoint = scaled_checkpoint(
        given.checkpoint, given.work / f"checkpoint-{given.rope}", given.scale_to, given.rope
    )
    asks = {DENSE: "", **{name_of(ask): ask for ask in given.passes}}
    programs = [Program(n, given.work / f"{n}-{given.rope}-{given.chunk}.fsaw", ask) for n, ask in asks.items()]
    readings, evals = Kept(given.work / "bench.json"), Kept(given.work / "eval.json")
    steps = given.steps.split(",")
    if "compile" in steps:
        compile_all(checkpoint, programs, given.chunk, given.cpu)
    if "bench" in steps:
        peers = peers_of(given, checkpoint, Limits(given.limit, given.memory, given.threads))
        bench_all(readings, programs, peers, given.tokens, given.rounds, given.text, given.threads)
    if "eval" in steps:
        eval_all(evals, programs, given.text, given.context, given.windows)
    if "report" in steps:
        print("\n".join(report(readings.data, evals.data)))
        if given.out is not None:
            given.out.write_text(json.dumps({"readings": readings.data, "eval": evals.data}, indent=1) + "\n")


if __name__ == "__main__":
    main()
