"""Embeddings of 2,000 texts: Fretsaw against its peers, separate processes that take turns, medians.

    python -P -m fretsaw.tools.bench.encoders --artifact minilm.fsaw --checkpoint minilm --peers .venv-peers/bin/python

Two sets of texts, cut by a seed from plain English (``FRETSAW_SHARED``/text): ``documents`` have 20 to 100 % of the
longest text, evenly (mean 0.6); ``long-tailed`` are lognormal around 40 tokens, a few as long as the model takes.
Times count tokenization and pooling, not loading; without tokenization they are in brackets. Fretsaw is
``fretsaw-run --embed`` from the file of texts to the file of vectors. Every engine's vectors are compared with its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from tokenizers import Tokenizer

from fretsaw.tools.bench.models import cpu_name
from fretsaw.tools.native import native_file

HERE = Path(__file__).parent
SETS = ("documents", "long-tailed")
PEERS = {
    "onnxruntime, sorted": ("onnxruntime", "sorted"),
    "onnxruntime, unsorted": ("onnxruntime", "unsorted"),
    "openvino, sorted": ("openvino", "sorted"),
    "openvino, unsorted": ("openvino", "unsorted"),
    "sentence-transformers": ("sentence-transformers", "sorted"),
    "torch, sorted": ("torch", "sorted"),
    "torch, unsorted": ("torch", "unsorted"),
}


@dataclass(frozen=True)
class Times:
    """Seconds of one run, with and without tokenization."""

    total: float
    encode: float


@dataclass(frozen=True)
class Setup:
    """What every process is given."""

    artifact: Path
    checkpoint: Path
    onnx: Path
    python: Path
    threads: int
    batch: int


def lengths(kind: str, count: int, longest: int, rng: random.Random) -> list[int]:
    """Tokens of each text, special ones included."""
    if kind == "documents":
        return [rng.randint(longest // 5, longest) for _ in range(count)]
    return [min(longest, max(4, round(rng.lognormvariate(3.7, 0.9)))) for _ in range(count)]


def corpus(folder: Path, tokenizer: Tokenizer) -> tuple[list[str], list[int]]:
    """Words of the shared texts in order, and the tokens of each."""
    text = " ".join((folder / name).read_text() for name in ("calib.txt", "eval.txt"))
    words = re.findall(r"\S+", text.replace("<|doc|>", " "))
    unique = sorted(set(words))
    sizes = {
        w: len(e.ids) for w, e in zip(unique, tokenizer.encode_batch(unique, add_special_tokens=False), strict=True)
    }
    return words, [sizes[w] for w in words]


def make_texts(kind: str, count: int, longest: int, tokenizer: Tokenizer) -> list[str]:
    """``count`` texts of whole words, none longer than it should be."""
    rng = random.Random(kind)
    folder = Path(os.environ.get("FRETSAW_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "text"
    words, sizes = corpus(folder, tokenizer)
    texts = []
    for wanted in lengths(kind, count, longest, rng):
        start = end = rng.randrange(len(words) - longest)
        room = wanted - 2
        while sizes[end] <= room:
            room -= sizes[end]
            end += 1
        texts.append(" ".join(words[start:end]))
    return texts


def run_json(command: Sequence[str]) -> Mapping[str, object]:
    """The JSON object on the last line that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}\nended with status {done.returncode}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(found, dict)
    return found


def run_fretsaw(setup: Setup, texts: Path, out: Path) -> Times:
    """From a file with a text a line."""
    command = [str(native_file("fretsaw-run")), str(setup.artifact), "--embed", str(texts), "--out", str(out)]
    timing = run_json([*command, "--threads", str(setup.threads), "--json"])["timing"]
    assert isinstance(timing, dict)
    return Times(timing["total_ms"] / 1000, timing["encode_ms"] / 1000)


def run_peer(setup: Setup, engine: str, order: str, texts: Path, out: Path) -> Times:
    """A process of the peers' Python. -P: the folder of benchmarks is not on its path."""
    found = run_json(
        [str(setup.python), "-P", str(HERE / "encoder_peers.py"), engine, "--model", str(setup.checkpoint), "--onnx",
         str(setup.onnx), "--texts", str(texts), "--out", str(out), "--order", order, "--batch", str(setup.batch),
         "--threads", str(setup.threads)]
    )  # fmt: skip
    total, encode = found["total_s"], found["encode_s"]
    assert isinstance(total, float) and isinstance(encode, float)
    return Times(total, encode)


def export(setup: Setup) -> None:
    """The ONNX models, made once."""
    if not (setup.onnx / "fused.onnx").is_file():
        setup.onnx.mkdir(parents=True, exist_ok=True)
        command = [str(setup.python), "-P", str(HERE / "encoder_peers.py"), "export"]
        subprocess.run([*command, "--model", str(setup.checkpoint), "--onnx", str(setup.onnx)], check=True)


def measure(
    setup: Setup, texts: Sequence[str], names: Sequence[str], rounds: int
) -> tuple[dict[str, list[Times]], dict[str, float]]:
    """Times by engine, and each engine's largest cosine distance to Fretsaw's vectors."""
    times: dict[str, list[Times]] = {"fretsaw": [], **{name: [] for name in names}}
    far: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        lines, listed, out = Path(name) / "texts.txt", Path(name) / "texts.json", Path(name) / "v.npy"
        lines.write_text("".join(t + "\n" for t in texts))
        listed.write_text(json.dumps(texts))
        for _ in range(rounds):
            times["fretsaw"].append(run_fretsaw(setup, lines, out))
            own = np.load(out).astype(np.float64)
            for peer in names:
                times[peer].append(run_peer(setup, *PEERS[peer], listed, out))
                print(f"{peer}: {times[peer][-1].total / times['fretsaw'][-1].total:.2f}x", file=sys.stderr, flush=True)
                other = np.load(out).astype(np.float64)
                norms = np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1)
                far[peer] = float((1 - (own * other).sum(1) / norms).max())
    return times, far


def report(kind: str, tokens: int, times: Mapping[str, Sequence[Times]], far: Mapping[str, float]) -> dict[str, object]:
    """Print one set's table; ratios are taken in each round first."""
    print(
        f"\n{kind}: {tokens} tokens\n\n| | tok/s (without tokenization) | Fretsaw / it | distance |\n|---|---|---|---|"
    )
    rows: dict[str, object] = {}
    for name, runs in times.items():
        total, encode = (tokens / median(getattr(t, field) for t in runs) for field in ("total", "encode"))
        ratio = median(t.total / own.total for t, own in zip(runs, times["fretsaw"], strict=True))
        inner = median(t.encode / own.encode for t, own in zip(runs, times["fretsaw"], strict=True))
        print(f"| {name} | {total:.0f} ({encode:.0f}) | {ratio:.2f}x ({inner:.2f}x) | {far.get(name, 0.0):.1e} |")
        rows[name] = {"tok_s": total, "encode_tok_s": encode, "ratio": ratio, "encode_ratio": inner,
                      "distance": far.get(name, 0.0), "runs": [[t.total, t.encode] for t in runs]}  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--peers", type=Path, required=True, help="Python of the peers' environment")
    parser.add_argument("--onnx", type=Path, help="folder of the ONNX models; default: beside the artifact")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--engines", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="texts in a batch of a peer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    onnx = args.onnx or args.artifact.with_suffix(".onnx")
    setup = Setup(args.artifact, args.checkpoint, onnx, args.peers, args.threads, args.batch)
    export(setup)
    tokenizer = Tokenizer.from_file(str(args.checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    longest = json.loads((args.checkpoint / "sentence_bert_config.json").read_text())["max_seq_length"]
    print(f"{cpu_name()}, {args.threads} threads, load {os.getloadavg()[0]:.1f}")
    results: dict[str, object] = {"cpu": cpu_name()}
    for kind in args.sets:
        texts = make_texts(kind, args.texts, longest, tokenizer)
        tokens = sum(len(e.ids) for e in tokenizer.encode_batch(texts))
        results[kind] = report(kind, tokens, *measure(setup, texts, args.engines, args.rounds))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
