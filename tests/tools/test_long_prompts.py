"""The bench of long prompts: the scaled checkpoint, limits of peers, what is reported; steps as long as a prompt."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from fretsaw.backends.tvm.build import build
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.frontend.capture import capture
from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.ir import run
from fretsaw.ir.errors import UsageError
from fretsaw.passes.pipeline import run_pipeline
from fretsaw.passes.sparse.sparse_attention import sparse_attention
from fretsaw.tools.bench import long_peers, long_prompts
from fretsaw.tools.bench.long_peers import Limits, run_engine, run_llama
from tests.backends.tvm.paged import PagedRunner
from tests.families import VOCAB, llama, reference

OLD = {"max_position_embeddings": 64, "rope_theta": 500.0, "rope_scaling": None, "vocab_size": VOCAB}


def test_positions_are_scaled_to_the_prompt() -> None:
    linear = long_prompts.scaled_config(OLD, 256, "linear")
    assert linear["rope_parameters"] == {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
    assert linear["max_position_embeddings"] == 256 + long_prompts.ROOM and linear["vocab_size"] == VOCAB
    assert "rope_scaling" not in linear and "rope_theta" not in linear
    new = {"max_position_embeddings": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}
    yarn = long_prompts.scaled_config(new, 96, "yarn")["rope_parameters"]
    assert yarn == {"rope_type": "yarn", "rope_theta": 7.0, "factor": 1.5, "original_max_position_embeddings": 64}


def test_what_is_not_scaled() -> None:
    with pytest.raises(SystemExit, match="64 tokens fit the context of 64"):
        long_prompts.scaled_config(OLD, 64, "yarn")
    with pytest.raises(SystemExit, match="rope type llama3"):
        long_prompts.scaled_config({**OLD, "rope_scaling": {"rope_type": "llama3"}}, 256, "yarn")


@pytest.mark.parametrize("kind", ["yarn", "linear"])
def test_the_scaled_model_is_that_of_transformers(kind: str, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    model = llama(max_position_embeddings=16, num_hidden_layers=1)
    model.save_pretrained(plain)
    folder = long_prompts.scaled_checkpoint(plain, tmp_path / "scaled", 64, kind)
    assert (folder / "model.safetensors").is_symlink()
    ids = np.random.default_rng(0).integers(0, VOCAB, (1, 60))  # almost four times the model's own context
    positions = np.arange(60)[None]
    (ours,) = run(capture(load_checkpoint(folder)), {"input_ids": ids, "positions": positions})
    theirs = reference(transformers.LlamaForCausalLM.from_pretrained(folder), torch.from_numpy(ids)).numpy()
    unscaled = reference(model, torch.from_numpy(ids)).numpy()
    size = np.abs(theirs).max()
    assert np.abs(ours - theirs).max() < 1e-4 * size  # both in f32, sums in another order
    assert np.abs(unscaled - theirs).max() > 1e-2 * size


def test_steps_have_a_longest_size() -> None:
    assert TvmOptions(chunk_tokens=65536).chunk_tokens == 65536
    with pytest.raises(UsageError, match="1 to 65536"):
        TvmOptions(chunk_tokens=65537)


@pytest.mark.parametrize(
    ("method", "tokens"), [("", 10_000), pytest.param("mean_pool", 33_000, marks=pytest.mark.exhaustive)]
)
def test_a_step_holds_a_long_prompt(method: str, tokens: int, tmp_path: Path) -> None:
    """One step and several give the same bits."""
    llama(max_position_embeddings=tokens, num_hidden_layers=1).save_pretrained(tmp_path)
    asked = (sparse_attention.configured({"method": method, "blocks": 12}),) if method else ()
    graph = run_pipeline(capture(load_checkpoint(tmp_path)), extra=asked).graph
    program = build(graph, TvmOptions(cpus=("x86-64-v3",), chunk_tokens=tokens))
    ids = np.random.default_rng(1).integers(0, VOCAB, tokens).tolist()
    last = []
    for step in (tokens, 6656):
        runner = PagedRunner(program, "llvm-x86-64-v3", pages_each=-(-tokens // 64))
        for at in range(0, tokens, step):
            part = ids[at : at + step]
            logits = runner.step([part], rows=[len(part) - 1])
        last.append(logits)
    assert np.isfinite(last[0]).all() and (last[0] == last[1]).all()


def script(folder: Path, text: str) -> Path:
    """A program that ignores what ``-P`` and the name of the engines' file mean to Python."""
    path = folder / "peer"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


def test_a_peer_that_answers(tmp_path: Path) -> None:
    text = "import sys, json\nprint('noise')\nn = int(sys.argv[sys.argv.index('--cases') + 1].split(':')[0])\n"
    peer = script(tmp_path, text + "print(json.dumps({'cases': [{'prefill_s': n / 100}]}))\n")
    assert run_engine(peer, "transformers", tmp_path, 700, Limits()).seconds == 7.0


@pytest.mark.parametrize(
    ("text", "limits", "why"),
    [
        ("import time; time.sleep(60)", Limits(seconds=0.5), "not done after 0 s"),
        ("x = bytearray(3 << 30)", Limits(gib=1), "ended with status 1: MemoryError"),
        ("import sys; sys.exit('no such model')", Limits(), "ended with status 1: no such model"),
    ],
)
def test_a_peer_that_does_not(text: str, limits: Limits, why: str, tmp_path: Path) -> None:
    found = run_engine(script(tmp_path, text), "transformers", tmp_path, 10, limits)
    assert found.seconds is None and found.why == why


SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def answer(self, found):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())
    def do_GET(self):
        self.answer({})
    def do_POST(self):
        count = len(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"])
        self.answer({"tokens_evaluated": min(count, MOST), "timings": {"prompt_ms": 2.0 * count}})
    def log_message(self, *args):
        pass

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.mark.parametrize(("most", "seconds"), [(1000, 1.0), (400, None)])
def test_a_server(most: int, seconds: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(long_peers, "PORT", free.getsockname()[1])
    found = run_llama(script(tmp_path, SERVER.replace("MOST", str(most))), tmp_path, 500, Limits(seconds=30), ())
    assert found.seconds == seconds
    assert found.why == ("" if seconds else "stopped answering: it read 400 tokens of 500")


def readings(**by_length: list[float | None]) -> dict[str, object]:
    """``dense=[...]``: seconds at 100, 200, ... tokens of round 0."""
    return {
        f"0/{100 * (i + 1)}/{name.replace('__', ':')}": {"seconds": s, "why": "" if s is not None else "no memory"}
        for name, some in by_length.items()
        for i, s in enumerate(some)
    }


def test_names_of_passes() -> None:
    assert long_prompts.name_of("sparse_attention:method=hip,mask_k=512") == "hip-mask_k-512"
    assert long_prompts.name_of("sparse_attention:method=plan,plan=a/b.toml") == "plan-plan-a-b.toml"


def test_a_peer_that_failed_is_not_asked_at_longer_prompts() -> None:
    found = readings(onnx=[1.0, None, None], other=[1.0, 2.0, 3.0])
    assert long_prompts.failed_before(found, "onnx", 300) == "failed at 200 tokens: no memory"
    assert not long_prompts.failed_before(found, "onnx", 200) and not long_prompts.failed_before(found, "other", 300)


def test_the_linear_part_of_dense_times() -> None:
    exact = {n: 0.002 * n + 3e-6 * n * n for n in (100, 250, 900)}
    assert abs(long_prompts.linear_part(exact) - 0.002) < 1e-9  # far above the rounding of a solve in f64


def test_the_report() -> None:
    found = readings(fretsaw__dense=[0.5, 1.6], fretsaw__hip=[0.5, 0.4], onnx=[2.0, None])
    found["1/200/fretsaw:hip"] = {"seconds": 0.8, "why": ""}  # another round: the median is 0.6
    lines = long_prompts.report(found, {"x": {"kl_mean": 0.5, "top1_agreement": 0.25}})
    assert lines[0] == "| | 100 | 200 |"
    assert "| fretsaw:hip | 0.5 s (1.00x) | 0.6 s (2.67x) |" in lines
    assert "| onnx | 2.0 s (0.25x) | no memory |" in lines
    assert "2.000 ms a token beside attention: at 200 at most 4.0 times as fast" in lines
    assert lines[-1] == "x: KL 0.5000, top-1 0.2500"


def test_results_are_kept(tmp_path: Path) -> None:
    kept = long_prompts.Kept(tmp_path / "kept.json")
    kept.put("a", {"seconds": 1.0})
    assert json.loads((tmp_path / "kept.json").read_text()) == long_prompts.Kept(tmp_path / "kept.json").data
