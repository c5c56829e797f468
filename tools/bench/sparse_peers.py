"""Sparse prefill beside OpenVINO GenAI's XAttention: one model, one text, each engine against its own dense attention.

    python -m fretsaw.tools.bench.sparse_peers --peers PYTHON --gguf GGUF --dense A --sparse B [--sparse C] --text T
        [--tokens 8000] [--settings 0.9:64:8:8192,...] [--rounds 3] [--json F] [--steps time,kl,report]

Every reading is a process of its own; those of a round alternate, so a slow minute of a shared machine hits all. With
``--json`` what was measured is kept in F after every reading, token ids in a folder beside it, and a run that was cut
short goes on from there.

The attention's share of a dense prefill is not measured but fitted: seconds = a n + b n^2 over the lengths of ``--fit``
and ``--tokens``, relative errors least squares; b n^2 is attention. What a sparse setting saves is taken over that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

PEER = Path(__file__).parent / "xattention_peer.py"
PEER_NAME = "OpenVINO GenAI"


@dataclass(frozen=True)
class Contender:
    """One engine with one setting.

    Args:
        against: Name of the dense contender of the same engine; empty for that one itself.
        read: Seconds from a prompt of so many tokens to its first token, in a new process.
    """

    name: str
    engine: str
    against: str
    read: Callable[[int], float]


Times = Mapping[str, Mapping[str, Sequence[float]]]  # by contender and tokens, one number a round


def fit(points: Mapping[int, float]) -> tuple[float, float]:
    """``a, b`` of seconds = a n + b n^2, least squares of the relative errors.

    Args:
        points: Seconds by tokens, two lengths or more.
    """
    n, t = (np.array(x, np.float64) for x in (list(points), list(points.values())))
    (a, b), *_ = np.linalg.lstsq(np.stack([n / t, n * n / t], 1), np.ones(len(n)), rcond=None)
    return float(a), float(b)


def attention_seconds(times: Mapping[str, Sequence[float]], tokens: int) -> float:
    """The quadratic part of a dense prefill of ``tokens``, from medians at all lengths."""
    return fit({int(n): median(seconds) for n, seconds in times.items()})[1] * tokens**2


def rows(contenders: Sequence[Contender], times: Times, scores: Mapping[str, Any], tokens: int) -> list[dict[str, Any]]:
    """One row for each contender that was read: medians over rounds; ratios are taken in each round first."""
    out: list[dict[str, Any]] = []
    for c in contenders:
        mine = times.get(c.name, {}).get(str(tokens))
        if not mine:
            continue
        row: dict[str, Any] = {"engine": c.engine, "setting": c.name, "seconds": median(mine), "rounds": len(mine)}
        dense = times.get(c.against or c.name, {})
        if len(dense) > 1:
            row["attention_share"] = attention_seconds(dense, tokens) / median(dense[str(tokens)])
        if c.against and dense.get(str(tokens)):
            pairs = list(zip(mine, dense[str(tokens)], strict=False))
            row["speed"] = median(d / s for s, d in pairs)
            if len(dense) > 1:
                row["saved"] = median(d - s for s, d in pairs) / attention_seconds(dense, tokens)
        out.append(row | {k: v for k, v in scores.get(c.name, {}).items() if k in ("kl", "top1")})
    return out


def table(found: Sequence[Mapping[str, Any]], tokens: int) -> str:
    """The rows as Markdown."""
    heads = ("engine", "setting", "rounds", f"s to the first token at {tokens:,}", "speed", "attention of dense",
             "of it saved", "mean KL, nats", "top-1 equal")  # fmt: skip
    keys = (("seconds", ".1f"), ("speed", ".2f"), ("attention_share", ".0%"), ("saved", ".0%"), ("kl", ".2g"),
            ("top1", ".1%"))  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in found:
        cells = [format(row[key], form) if key in row else "" for key, form in keys]
        lines.append(f"| {row['engine']} | `{row['setting']}` | {row['rounds']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure(
    contenders: Sequence[Contender],
    times: dict[str, dict[str, list[float]]],
    tokens: int,
    lengths: Sequence[int],
    rounds: int,
    keep: Callable[[], None],
) -> None:
    """Readings that are not in ``times`` yet: all contenders at ``tokens`` in every round, who is first changes; then
    the dense ones at the shorter ``lengths``, one round."""

    def read(c: Contender, n: int, number: int) -> None:
        done = times.setdefault(c.name, {}).setdefault(str(n), [])
        if len(done) <= number:
            done.append(c.read(n))
            print(f"{c.name}: {n} tokens in {done[-1]:.2f} s", file=sys.stderr, flush=True)
            keep()

    for n in lengths:
        for c in contenders:
            if not c.against:
                read(c, n, 0)
    for number in range(rounds):
        for c in contenders if number % 2 == 0 else contenders[::-1]:
            read(c, tokens, number)


def ours(dense: Path, sparse: Sequence[Path], text: Path, threads: int) -> list[Contender]:
    """Artifacts, by the names of their files."""
    from fretsaw.tools.prefill import read_apart

    def reader(artifact: Path) -> Callable[[int], float]:
        return lambda n: read_apart(artifact, n, 0, threads, text).first_token_ms / 1e3

    return [Contender(dense.stem, "Fretsaw", "", reader(dense))] + [
        Contender(path.stem, "Fretsaw", dense.stem, reader(path)) for path in sparse
    ]


def theirs(python: Path, gguf: Path, ids: Path, settings: Sequence[str], threads: int) -> list[Contender]:
    """OpenVINO GenAI: its dense attention with the steps of each batch in ``settings``, and the settings."""

    def reader(setting: str) -> Callable[[int], float]:
        def read(n: int) -> float:
            found = peer(
                python, "time", gguf, ids, "--settings", setting, "--lengths", str(n), "--threads", str(threads)
            )
            return float(found["seconds"][str(n)])

        return read

    batches = dict.fromkeys(s.rsplit(":", 1)[-1] for s in settings)
    dense = [Contender(f"dense:{n}", PEER_NAME, "", reader(f"dense:{n}")) for n in batches]
    return dense + [
        Contender(s, PEER_NAME, f"dense:{s.rsplit(':', 1)[-1]}", reader(s)) for s in settings if s[:5] != "dense"
    ]


def write_ids(folder: Path, artifact: Path, text: Path, tokens: int) -> None:
    """``ids.json``: the first ``tokens`` ids of the text by the artifact's tokenizer; both engines read the same.

    Raises:
        SystemExit: the text is too short, or the folder is of other ids.
    """
    from fretsaw.runtime import Model

    with Model(artifact, threads=1) as model:
        ids = [int(i) for i in model.encode(text.read_text(encoding="utf-8"), False)[:tokens]]
    if len(ids) < tokens:
        raise SystemExit(f"{text} has {len(ids)} tokens, not {tokens}")
    path = folder / "ids.json"
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists() and json.loads(path.read_text()) != ids:
        raise SystemExit(f"{folder} is of another text or another number of tokens: remove it, or name another --json")
    path.write_text(json.dumps(ids))


def peer(python: Path, *args: str | Path) -> dict[str, Any]:
    """The JSON object of one process of the peer. -P: the folder of benchmarks is not on its path."""
    return run(python, "-P", PEER, *args)


def run(*command: str | Path) -> dict[str, Any]:
    """The JSON object on the last line that a command prints.

    Raises:
        SystemExit: it failed; with what it said.
    """
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}\nended with status {done.returncode}")
    text = done.stdout.strip()
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = json.loads(text.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def our_score(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What ``fretsaw eval`` says of one window of the text, with the dense artifact."""
    asked = ("--context", str(args.tokens), "--limit", "1", "--threads", str(args.threads), "--json")
    command = (sys.executable, "-m", "fretsaw.tools.cli", "eval", path, "--text", args.text, "--against", args.dense)
    found = run(*command, *asked)
    return {**found, "kl": found["kl_mean"], "top1": found["top1_agreement"]}


def their_score(setting: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same of one setting of the peer."""
    asked = ("--settings", setting, "--threads", str(args.threads))
    return peer(args.peers, "kl", args.gguf, folder / "ids.json", *asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="Python of the peers' environment")
    parser.add_argument("--gguf", type=Path, required=True, help="the model for OpenVINO GenAI, in f16 or f32")
    parser.add_argument("--dense", type=Path, required=True)
    parser.add_argument("--sparse", type=Path, action="append", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=8000)
    asked = "of XAttention: threshold:block:stride:batch; dense:BATCH for dense attention alone"
    parser.add_argument("--settings", default="0.8:64:8:8192,0.9:64:8:8192,0.95:64:8:8192", help=asked)
    parser.add_argument("--fit", default="1000,2000,4000", help="shorter prompts for the fit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", default="time,kl,report")
    args = parser.parse_args()
    state: dict[str, Any] = {"tokens": args.tokens, "times": {}, "scores": {}}
    if args.json and args.json.exists():
        state |= json.loads(args.json.read_text())

    def keep() -> None:
        if args.json:
            args.json.write_text(json.dumps(state, indent=1) + "\n")

    with TemporaryDirectory() as temporary:
        folder = args.json.with_suffix(".work") if args.json else Path(temporary)
        write_ids(folder, args.dense, args.text, args.tokens)
        settings = args.settings.split(",")
        both = ours(args.dense, args.sparse, args.text, args.threads)
        both += theirs(args.peers, args.gguf, folder / "ids.json", settings, args.threads)
        if "time" in args.steps:
            measure(both, state["times"], args.tokens, [int(n) for n in args.fit.split(",") if n], args.rounds, keep)
        if "kl" in args.steps:
            todo = {p.stem: partial(our_score, p, args) for p in args.sparse}
            todo |= {s: partial(their_score, s, args, folder) for s in settings if s[:5] != "dense"}
            for name in [name for name in todo if name not in state["scores"]]:
                state["scores"][name] = todo[name]()
                keep()
        state["rows"] = rows(both, state["times"], state["scores"], args.tokens)
        keep()
        if "report" in args.steps:
            print(table(state["rows"], args.tokens))


if __name__ == "__main__":
    main()
