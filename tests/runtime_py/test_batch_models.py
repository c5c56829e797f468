"""Batched and alone, a compiled model gives the same tokens: any budget, any number of threads, with draws.

Prompts share prefixes, differ in length, and come in an order in which long ones stand before short ones.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fretsaw import runtime
from fretsaw.tools.chosen_backend import choose
from fretsaw.tools.compiler import CompileOptions, compile_checkpoint
from fretsaw.tools.reporter import Reporter
from tests import families

pytestmark = pytest.mark.native
FAMILIES = ("llama", "gemma3", "qwen3_moe")
Request = dict[str, object]


@dataclass(frozen=True)
class Compiled:
    """An artifact, requests, and what each gives when it runs alone on one thread."""

    artifact: Path
    requests: list[Request]
    alone: list[list[int]]


def requests(vocab: int) -> list[Request]:
    """Prompts of 1 to 100 tokens, every other one with draws of its own seed."""
    rng = np.random.default_rng(5)
    common = rng.integers(1, vocab, 80).tolist()
    prompts = [rng.integers(1, vocab, n).tolist() for n in (100, 1, 40, 77, 7)]
    prompts += [common[:n] + rng.integers(1, vocab, 3).tolist() for n in (80, 64, 33, 80)]
    prompts += [common, common]
    out: list[Request] = []
    for i, ids in enumerate(prompts):
        request: Request = {"ids": ids, "max_new_tokens": 6 + 5 * (i % 4), "ignore_eos": True}
        if i % 2:
            request |= {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "repetition_penalty": 1.1, "seed": i}
        out.append(request)
    return out


def alone(binary: Path, artifact: Path, request: Request) -> list[int]:
    """Ids that ``fretsaw-run --ids`` gives on one thread."""
    ids = request["ids"]
    assert isinstance(ids, list)
    command = [str(binary), str(artifact), "--ids", ",".join(map(str, ids)), "--ignore-eos", "--json", "--threads", "1"]
    for key, value in request.items():
        if key not in {"ids", "ignore_eos"}:
            command += [f"--{key.replace('_', '-')}", str(value)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    tokens = json.loads(done.stdout)["tokens"]
    assert isinstance(tokens, list)
    return tokens


@pytest.fixture(scope="module", params=FAMILIES)
def compiled(request: pytest.FixtureRequest, binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    folder = tmp_path_factory.mktemp(request.param)
    model = families.save(request.param, folder / "model")
    artifact = folder / "model.fsaw"
    compile_checkpoint(
        folder / "model", artifact, CompileOptions(choose("cpu:cpus=x86-64-v3,chunk_tokens=128")), Reporter()
    )
    asked = requests(model.config.vocab_size)
    return Compiled(artifact, asked, [alone(binary, artifact, r) for r in asked])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("budget", [1, 7, 64, 2048])
def test_tokens_are_those_of_single_runs(
    binary: Path, compiled: Compiled, tmp_path: Path, budget: int, threads: int
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in compiled.requests))
    command = [str(binary), str(compiled.artifact), "--batch", str(source), "--out", str(out), "--json"]
    command += ["--max-batch-tokens", str(budget), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=240)
    got = [json.loads(line)["tokens"] for line in out.read_text().splitlines()]
    assert got == compiled.alone
    assert json.loads(done.stdout)["shared_tokens"] > 0


def bound(request: Request) -> runtime.Request:
    """The request for the binding."""
    ids, count, seed = request["ids"], request["max_new_tokens"], request.get("seed")
    assert isinstance(ids, list) and isinstance(count, int)
    draws = None if seed is None else runtime.Sampling(0.9, 40, 0.95, repetition_penalty=1.1, seed=int(str(seed)))
    return runtime.Request(ids, count, draws, ignore_eos=True)


def test_the_binding_gives_the_same(compiled: Compiled) -> None:
    with runtime.Model(compiled.artifact, threads=2) as model:
        got = model.batch([bound(r) for r in compiled.requests], runtime.BatchOptions(max_batch_tokens=50))
        assert [r.tokens for r in got] == compiled.alone


def test_the_draws_are_draws(compiled: Compiled) -> None:
    greedy, drawn = compiled.alone[9], compiled.alone[10]  # the same prompt
    assert compiled.requests[9]["ids"] == compiled.requests[10]["ids"]
    assert greedy[: len(drawn)] != drawn[: len(greedy)]
