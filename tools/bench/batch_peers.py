"""One peer, one process: many requests at once, as fast as it can; prints one JSON object.

Run by ``batching.py`` with the peers' own Python; it imports nothing of Fretsaw. Requests are JSON lines of ``ids`` and
``max_new_tokens``; decoding is greedy and goes on past the end of sequence. Loading and a short warm-up do not count.

- ``openvino-genai``: its continuous batching, arithmetic and cache in f32, from a GGUF file.
- ``onnxruntime-genai``: its engine of static batches: it pads, so requests of similar length go together.
- ``llama-server``: the server of llama.cpp, as many slots as requests at once, on a GGUF file; ``--server`` names it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Setup:
    """What a peer is given."""

    model: Path
    threads: int
    sequences: int
    server: Path


Request = dict[str, Any]
Peer = Callable[[Setup, list[Request]], float]  # seconds of all requests
PORT = 18391


def openvino_genai(setup: Setup, requests: list[Request]) -> float:
    """All requests are queued, then steps run until none is left."""
    import numpy as np
    import openvino as ov
    import openvino_genai as ovg

    config: Any = ovg.SchedulerConfig()
    config.cache_size, config.max_num_seqs, config.max_num_batched_tokens = 4, setup.sequences, 512
    config.dynamic_split_fuse, config.enable_prefix_caching = True, True
    properties = {
        "INFERENCE_NUM_THREADS": setup.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    pipe: Any = ovg.ContinuousBatchingPipeline(str(setup.model), config, "CPU", properties)

    def run(batch: list[Request]) -> float:
        start = time.perf_counter()
        handles = []
        for i, request in enumerate(batch):
            options = ovg.GenerationConfig()
            options.max_new_tokens = options.min_new_tokens = request["max_new_tokens"]
            options.ignore_eos, options.do_sample = True, False
            ids = ov.Tensor(np.array([request["ids"]], dtype=np.int64))
            handles.append(pipe.add_request(i, ids, options))
        while pipe.has_non_finished_requests():
            pipe.step()
        seconds = time.perf_counter() - start
        for handle, request in zip(handles, batch, strict=True):
            assert len(handle.read_all()[0].generated_ids) == request["max_new_tokens"]
        return seconds

    run([{"ids": list(range(100, 164)), "max_new_tokens": 4}])
    return run(requests)


def onnxruntime_genai(setup: Setup, requests: list[Request]) -> float:
    """Static batches of 8, sorted by length, padded on the left; a batch ends with its longest answer."""
    import numpy as np
    import onnxruntime_genai as og

    config: Any = og.Config(str(setup.model))
    options = {"intra_op_num_threads": setup.threads, "inter_op_num_threads": 1}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    net: Any = og.Model(config)

    def run(batch: list[Request]) -> float:
        start = time.perf_counter()
        length = max(len(r["ids"]) for r in batch)
        new = max(r["max_new_tokens"] for r in batch)
        ids = np.zeros((len(batch), length), dtype=np.int32)
        for row, request in zip(ids, batch, strict=True):
            row[length - len(request["ids"]) :] = request["ids"]
        params: Any = og.GeneratorParams(net)
        params.set_search_options(
            max_length=length + new, min_length=length + new, batch_size=len(batch), do_sample=False
        )
        generator: Any = og.Generator(net, params)
        generator.append_tokens(ids)
        for _ in range(new):
            generator.generate_next_token()
        return time.perf_counter() - start

    run([{"ids": list(range(100, 164)), "max_new_tokens": 4}])
    ordered = sorted(requests, key=lambda r: (len(r["ids"]), r["max_new_tokens"]))
    return sum(run(ordered[i : i + 8]) for i in range(0, len(ordered), 8))


def llama_server(setup: Setup, requests: list[Request]) -> float:
    """One HTTP client a slot; the server batches what it has."""
    slots = min(setup.sequences, len(requests))
    command = [str(setup.server), "-m", str(setup.model), "-t", str(setup.threads), "-tb", str(setup.threads)]
    command += ["-c", "147456", "-np", str(slots), "--kv-unified", "-b", "2048", "-ub", "512", "-ctk", "f32"]
    command += ["-ctv", "f32", "-fa", "on", "--port", str(PORT), "--no-warmup", "-ngl", "0", "--log-disable"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(server)
            _complete({"ids": list(range(100, 164)), "max_new_tokens": 4})
            start = time.perf_counter()
            waiting = iter(requests)
            lock = threading.Lock()

            def client() -> None:
                while True:
                    with lock:
                        request = next(waiting, None)
                    if request is None:
                        return
                    _complete(request)

            clients = [threading.Thread(target=client) for _ in range(slots)]
            for thread in clients:
                thread.start()
            for thread in clients:
                thread.join()
            return time.perf_counter() - start
        finally:
            server.terminate()


def _wait_for(server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None, "llama-server ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5).read()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("llama-server does not answer")


def _complete(request: Request) -> None:
    new = request["max_new_tokens"]
    body = {"prompt": request["ids"], "n_predict": new, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    asked = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    answer = json.loads(urllib.request.urlopen(asked, timeout=1200).read())
    assert answer["tokens_predicted"] == new and answer["tokens_evaluated"] == len(request["ids"]), answer["timings"]


PEERS: dict[str, Peer] = {
    "openvino-genai": openvino_genai,
    "onnxruntime-genai": onnxruntime_genai,
    "llama-server": llama_server,
}


def main() -> None:
    """Run one peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("model", type=Path)
    parser.add_argument("requests", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--server", type=Path, default=Path("llama-server"))
    args = parser.parse_args()
    requests = [json.loads(line) for line in args.requests.read_text().splitlines()]
    seconds = PEERS[args.peer](Setup(args.model, args.threads, args.sequences, args.server), requests)
    tokens = sum(len(r["ids"]) + r["max_new_tokens"] for r in requests)
    print(json.dumps({"peer": args.peer, "seconds": seconds, "tokens": tokens, "tok_s": tokens / seconds}))


if __name__ == "__main__":
    main()
