"""One peer, one process: load a model, warm up, time prefill and decode, print one JSON object.

Run by ``models.py`` with the peers' own Python; it imports nothing of Fretsaw. Every engine gets the same
token ids, the same number of threads, and computes the logits of the last prompt token only. Prefill is the
time until the first new token is known; decode is the time of the tokens after it.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """``prefill`` prompt tokens, then ``decode`` more tokens after the first one."""

    prefill: int
    decode: int


Seconds = tuple[float, float]  # prefill, decode in all
Engine = Callable[[Case], Seconds]


def prompt(count: int, vocab: int = 40_000) -> list[int]:
    """``count`` ids that repeat nothing, the same on every machine; specials are left out."""
    return [100 + (i * 7919) % (vocab - 100) for i in range(count)]


def transformers_engine(model: Path, threads: int, attention: str = "sdpa") -> Engine:
    """transformers in f32, not compiled, last logits only; its default attention unless told otherwise."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    net: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation=attention)
    net.eval()

    def run(case: Case) -> Seconds:
        with torch.inference_mode():
            start = time.perf_counter()
            out = net(torch.tensor([prompt(case.prefill)]), use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1:].argmax(-1)
            middle = time.perf_counter()
            for _ in range(case.decode):
                out = net(token, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
                token = out.logits[:, -1:].argmax(-1)
            return middle - start, time.perf_counter() - middle

    return run


def transformers_eager_attention(model: Path, threads: int) -> Engine:
    return transformers_engine(model, threads, "eager")


def onnxruntime_genai(model: Path, threads: int) -> Engine:
    """ONNX Runtime GenAI on a folder made by its model builder (``-p fp32 -e cpu``)."""
    import numpy as np
    import onnxruntime_genai as og

    config: Any = og.Config(str(model))
    options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    net: Any = og.Model(config)

    def run(case: Case) -> Seconds:
        params: Any = og.GeneratorParams(net)
        length = case.prefill + case.decode + 1
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator: Any = og.Generator(net, params)
        start = time.perf_counter()
        generator.append_tokens(np.array([prompt(case.prefill)], dtype=np.int32))
        generator.generate_next_token()
        middle = time.perf_counter()
        for _ in range(case.decode):
            generator.generate_next_token()
        return middle - start, time.perf_counter() - middle

    return run


def openvino_genai(model: Path, threads: int) -> Engine:
    """OpenVINO GenAI on a GGUF file, arithmetic in f32 and no dynamic quantization of activations."""
    import numpy as np
    import openvino as ov
    import openvino_genai as ovg

    properties = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    pipe: Any = ovg.LLMPipeline(str(model), "CPU", **properties)

    def run(case: Case) -> Seconds:
        ids = np.array([prompt(case.prefill)], dtype=np.int64)
        inputs = ovg.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))
        config = ovg.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = case.decode + 1
        config.ignore_eos, config.do_sample = True, False
        metrics = pipe.generate(inputs, config).perf_metrics
        times = metrics.raw_metrics.m_times_to_first_token, metrics.raw_metrics.m_durations
        assert metrics.get_num_generated_tokens() == case.decode + 1
        steps = list(times[1])[-case.decode :]  # microseconds each
        return float(times[0][0]) / 1e6, float(sum(steps)) / 1e6

    return run


def sgemm_gflops(threads: int, size: int = 2048, rounds: int = 9) -> float:
    """The best f32 GFLOP/s of torch's matrix product (oneDNN or MKL), ``size`` cubed: what a GEMM reaches here."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2e-9 * size**3 / min(times)


ENGINES: dict[str, Callable[[Path, int], Engine]] = {
    "transformers": transformers_engine,
    "transformers-eager-attention": transformers_eager_attention,
    "onnxruntime-genai": onnxruntime_genai,
    "openvino-genai": openvino_genai,
}


def parse_cases(text: str) -> list[Case]:
    """``512:32,2048:8`` -> two cases."""
    return [Case(*(int(n) for n in part.split(":"))) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=[*ENGINES, "sgemm"], help="sgemm: the matrix product alone, no model")
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", type=parse_cases, default=parse_cases("512:32,2048:16"))
    args = parser.parse_args()
    if args.engine == "sgemm":
        print(json.dumps({"gflops": sgemm_gflops(args.threads)}))
        return
    start = time.perf_counter()
    run = ENGINES[args.engine](args.model, args.threads)
    load = time.perf_counter() - start
    run(Case(64, 4))  # warm-up: thread pools, page faults, lazy initialization
    results = []
    for case in args.cases:
        prefill, decode = run(case)
        results.append({"prefill": case.prefill, "decode": case.decode, "prefill_s": prefill, "decode_s": decode})
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    json.dump({"engine": args.engine, "load_s": load, "peak_rss_bytes": rss, "cases": results}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
