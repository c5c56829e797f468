"""A cache policy from outside: one folder, registered by ``--plugin``, through compile, artifact and the C++ runtime.

The oracle is transformers' own model, run over whole texts with a mask that drops the same keys. It says page by page
what is dropped and shares no code with the policy.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from fretsaw import runtime
from fretsaw.backends.artifact import Container
from fretsaw.ir import parse
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.kit.registry import Registry
from fretsaw.passes.pipeline import run_pipeline
from fretsaw.runtime.batch import Batch
from fretsaw.tools import cli
from tests import families
from tests.passes.llama_text import llama

pytestmark = pytest.mark.native
PLUGIN = Path(__file__).with_name("window_policy.py")
SINKS, WINDOW, PAGE, CONTEXT = 4, 40, 64, 512
MOST_SLOTS = 64 + 40 + 64  # of a row: sinks in whole pages, the window, and a page until it is dropped whole
LENGTHS = (3, 300, 104, 168, 105, 64, 230, 167, 30)  # around and over what rows hold


@dataclass(frozen=True)
class Compiled:
    model: PreTrainedModel
    artifact: Path
    prompts: list[list[int]]
    tokens: list[list[int]]  # the oracle's, 70 of each


def held(position: int, seen: int) -> bool:
    """A page goes once none of its tokens is among the first SINKS or the last WINDOW of those seen."""
    page = range(position // PAGE * PAGE, (position // PAGE + 1) * PAGE)
    return any(i < SINKS or i >= seen - WINDOW for i in page)


def mask(count: int) -> torch.Tensor:
    """f32 [1, 1, count, count]: each token sees what is held when it comes, and itself."""
    seen = [[q == k or (k < q and held(k, q)) for k in range(count)] for q in range(count)]
    return torch.where(torch.tensor(seen), 0.0, torch.finfo(torch.float32).min)[None, None]


def oracle(model: PreTrainedModel, prompt: list[int], count: int) -> list[int]:
    """Greedy continuation, every token from the whole text."""
    ids, whole = list(prompt), mask(len(prompt) + count)
    with torch.no_grad():
        for _ in range(count):
            n = len(ids)
            logits = model(input_ids=torch.tensor([ids]), attention_mask=whole[:, :, :n, :n], use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    folder = tmp_path_factory.mktemp("window")
    model = families.llama(max_position_embeddings=CONTEXT, attn_implementation="eager")
    model.save_pretrained(folder / "model")
    artifact = folder / "model.fsaw"
    asked = ["--plugin", str(PLUGIN), "--pass", f"window_policy:sinks={SINKS},window={WINDOW}"]
    command = ["compile", str(folder / "model"), "-o", str(artifact), "--cpu", "x86-64-v3", "--chunk", "128", "--quiet"]
    assert cli.run([*command, *asked]) == 0
    rng = np.random.default_rng(7)
    prompts = [rng.integers(3, families.VOCAB, n).tolist() for n in LENGTHS]
    return Compiled(model, artifact, prompts, [oracle(model, p, 70) for p in prompts])


def test_the_artifact_says_so(compiled: Compiled) -> None:
    container = Container.open(compiled.artifact)
    kv = container.manifest["kv"]
    assert isinstance(kv, dict)
    assert kv["policy"] == {"name": "window", "sinks": SINKS, "window": WINDOW}
    entry = next(e for e in json.loads(container.text("evidence.json"))["passes"] if e["name"] == "window_policy")
    assert entry["keeps"] == "budget" and entry["hit"] == 2 and entry["origin"] == f"plugin {PLUGIN}"
    # Measured on a text that is longer than what rows hold, where they begin to drop some.
    assert entry["check"]["first_row"] == MOST_SLOTS
    assert entry["check"]["kl_short"] == 0 and entry["check"]["kl"] > 1e-3


@pytest.mark.parametrize("mode", ["whole", "blocks"])
def test_what_is_lost_is_measured_by_block_too(mode: Literal["whole", "blocks"]) -> None:
    p = Registry.standard().with_plugin(PLUGIN).find("window_policy").configured({"sinks": SINKS, "window": WINDOW})
    graph = parse(llama(2), seed=0)
    options = EvidenceOptions(mode=mode, long_tokens=400)
    entry = next(e for e in run_pipeline(graph, extra=(p,), check=options).ledger if e.name == "window_policy")
    assert entry.check["mode"] == mode
    kl = entry.check["kl"]
    assert isinstance(kl, float) and kl > 1e-4


def test_the_window_matters(compiled: Compiled) -> None:
    """Otherwise the comparison below would hold for any policy."""
    dense = []
    with torch.no_grad():
        for prompt in compiled.prompts:
            made = compiled.model.generate(
                torch.tensor([prompt]), max_new_tokens=70, do_sample=False, eos_token_id=None
            )
            dense.append(made[0, len(prompt) :].tolist())
    assert sum(a != b for a, b in zip(dense, compiled.tokens, strict=True)) > len(LENGTHS) // 2


@pytest.mark.parametrize("budget", [1, 50, 128])
def test_tokens_are_the_oracles_in_any_batch(compiled: Compiled, budget: int) -> None:
    column = 2 * 2 * PAGE * (20 + 20) * 4  # bytes of a page of every layer and head
    kv_bytes = 2 * -(-MOST_SLOTS // PAGE) * column  # two sequences, however long
    with runtime.Model(compiled.artifact, threads=1) as model:
        asked = [runtime.Request(p, 70, ignore_eos=True) for p in compiled.prompts]
        options = runtime.BatchOptions(max_batch_tokens=budget, kv_bytes=kv_bytes)
        got = [r.tokens for r in model.batch(asked, options)]
    assert got == compiled.tokens


def test_cancelled_ones_leave_the_others_alone(compiled: Compiled) -> None:
    with runtime.Model(compiled.artifact, threads=1) as model, Batch(model, runtime.BatchOptions()) as batch:
        ids = [batch.submit(runtime.Request(p, 70, ignore_eos=True)) for p in compiled.prompts]
        ended: dict[int, runtime.Completed] = {}
        steps = 0
        while batch.step():
            steps += 1
            if steps == 4:
                batch.cancel(ids[1])  # it reads its prompt
            if steps == 40:
                batch.cancel(ids[4])  # it decodes, and has dropped a page
            while (taken := batch.take()) is not None:
                ended[taken[0]] = taken[1]
        while (taken := batch.take()) is not None:
            ended[taken[0]] = taken[1]
        assert batch.stats()["used_pages"] == 0
    for i, (id, want) in enumerate(zip(ids, compiled.tokens, strict=True)):
        if i in (1, 4):
            assert ended[id].finish == "cancelled" and ended[id].tokens == want[: len(ended[id].tokens)]
        else:
            assert ended[id].tokens == want


def test_alone_by_the_command(compiled: Compiled, binary: Path) -> None:
    """A session of its own, whose cache is sized by what rows hold."""
    prompt = ",".join(map(str, compiled.prompts[1]))
    command = [str(binary), str(compiled.artifact), "--ids", prompt, "-n", "70", "--ignore-eos", "--json"]
    report = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)
    assert report["tokens"] == compiled.tokens[1]
    assert report["memory"]["kv_bytes"] == 3 * 2 * 2 * PAGE * (20 + 20) * 4


@pytest.fixture(scope="session")
def binary() -> Path:
    from tests.runtime_py.conftest import build_dir

    path = build_dir() / "fretsaw-run"
    if not path.is_file():
        pytest.skip(f"{path} is not built: set FRETSAW_BUILD")
    return path
