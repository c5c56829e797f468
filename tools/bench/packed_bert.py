"""ByteTransformer's setting on a CPU: BERT-base sizes, a batch of 16, lengths uniform in [0.2, 1] of the longest.

    python -P -m fretsaw.tools.bench.packed_bert --folder build/bert-base --peers .venv-peers/bin/python

Prints milliseconds a batch for each longest length, and how many times as fast the packed program is. Weights and ids
are random (seeded). ``fretsaw, padded`` is the same program on texts filled up to the longest one: what computing
padding would cost. Every engine runs in a process of its own, once to warm up and once measured in each round; they
take turns. The checkpoint, the artifact and the ONNX models are made in ``--folder`` on the first run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from fretsaw.tools.bench.encoders import Setup, export, run_json, run_peer
from fretsaw.tools.bench.models import cpu_name

LENGTHS, BATCH, VOCAB = (256, 512, 1024), 16, 30522
PEERS = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def prepare(folder: Path, chunk: int) -> None:
    """A checkpoint with random weights, mean pooling and room for 1,024 tokens, and its artifact."""
    import torch
    from transformers import BertConfig, BertModel

    from fretsaw.tools.chosen_backend import choose
    from fretsaw.tools.compiler import CompileOptions, compile_checkpoint
    from fretsaw.tools.reporter import Reporter

    source = folder / "checkpoint"
    if not (source / "modules.json").is_file():
        torch.manual_seed(0)
        BertModel(BertConfig(max_position_embeddings=max(LENGTHS))).save_pretrained(source)
        pooling = source / "1_Pooling"
        pooling.mkdir(exist_ok=True)
        (pooling / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
        kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
        modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds.items()]
        (source / "modules.json").write_text(json.dumps(modules))
    if not (folder / "bert.fsaw").is_file():
        compile_checkpoint(
            source, folder / "bert.fsaw", CompileOptions(choose(f"cpu:chunk_tokens={chunk}")), Reporter()
        )


def batch_of(longest: int) -> list[list[int]]:
    """Ids of a batch; the longest text is as long as it may be."""
    rng = np.random.default_rng(longest)
    lengths = rng.integers(longest // 5, longest + 1, BATCH)
    lengths[0] = longest
    return [rng.integers(1000, VOCAB, int(n)).tolist() for n in lengths]


def own(artifact: Path, ids: Path, out: Path, threads: int) -> None:
    """The measured process of Fretsaw."""
    from fretsaw.runtime import Model

    texts = json.loads(ids.read_text())
    with Model(artifact, threads=threads) as model:
        model.embed(texts[:2])
        start = time.perf_counter()
        vectors = model.embed(texts)
        seconds = time.perf_counter() - start
    np.save(out, vectors)
    print(json.dumps({"total_s": seconds}))


def run_own(setup: Setup, ids: Path, out: Path) -> float:
    """Seconds of the batch in a process of its own."""
    found = run_json(
        [sys.executable, "-P", "-m", "fretsaw.tools.bench.packed_bert", "--own", str(setup.artifact), str(ids),
         str(out), "--threads", str(setup.threads)]
    )["total_s"]  # fmt: skip
    assert isinstance(found, float)
    return found


def measure(setup: Setup, longest: int, rounds: int) -> Mapping[str, Sequence[float]]:
    """Seconds of every round by engine; checks the peers' vectors against the packed ones."""
    ids = batch_of(longest)
    times: dict[str, list[float]] = {name: [] for name in ("fretsaw, packed", "fretsaw, padded", *PEERS)}
    with tempfile.TemporaryDirectory() as name:
        packed, padded, out = (Path(name) / n for n in ("packed.json", "padded.json", "v.npy"))
        packed.write_text(json.dumps(ids))
        padded.write_text(json.dumps([i + [0] * (longest - len(i)) for i in ids]))
        for _ in range(rounds):
            times["fretsaw, padded"].append(run_own(setup, padded, out))
            times["fretsaw, packed"].append(run_own(setup, packed, out))
            want = np.load(out).astype(np.float64)
            for peer, engine in PEERS.items():
                times[peer].append(run_peer(setup, engine, "unsorted", packed, out).encode)
                distance = float((1 - (np.load(out) * want).sum(1)).max())
                if distance > 1e-5:
                    raise SystemExit(f"{peer} is {distance:.1e} away")
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--peers", type=Path, help="Python of the peers' environment")
    parser.add_argument("--chunk", type=int, default=max(LENGTHS), help="tokens of a step")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prepare", action="store_true", help="make the files and stop")
    parser.add_argument("--own", type=Path, nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.own:
        artifact, ids, out = args.own
        return own(artifact, ids, out, args.threads)
    checkpoint, onnx = args.folder / "checkpoint", args.folder / "onnx"
    prepare(args.folder, args.chunk)
    setup = Setup(args.folder / "bert.fsaw", checkpoint, onnx, args.peers, args.threads, BATCH)
    export(setup)
    if args.prepare:
        return None
    print(f"{cpu_name()}, {args.threads} threads, ms a batch (packed / it)\n")
    for longest in args.lengths:
        times = measure(setup, longest, args.rounds)
        base = median(times["fretsaw, packed"])
        cells = [f"{name} {median(t) * 1000:.0f} ({median(t) / base:.2f}x)" for name, t in times.items()]
        print(f"| {longest} | " + " | ".join(cells) + " |", flush=True)
    return None


if __name__ == "__main__":
    main()
