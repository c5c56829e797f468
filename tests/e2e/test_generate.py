"""From a checkpoint directory to text: the artifact generates what transformers generates."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from fretsaw.tools.chosen_backend import choose
from fretsaw.tools.compiler import CompileOptions, compile_checkpoint
from fretsaw.tools.native import native_file
from fretsaw.tools.reporter import Reporter
from tests import families

pytestmark = pytest.mark.native
FAMILIES = ("llama", "qwen3", "gemma3", "phi3", "gpt_neox", "mixtral", "qwen3_moe")
OFTEN = ("llama", "qwen3", "gemma3", "mixtral")  # logits of every family are compared in tests/backends/tvm
NEAR_TIE = 1e-4  # top two logits closer than this: which one wins is rounding


def compile_model(source: Path, output: Path) -> Path:
    compile_checkpoint(source, output, CompileOptions(choose("cpu:cpus=x86-64-v3")), Reporter())
    return output


def generate(artifact: Path, prompt: list[int], count: int) -> list[int]:
    command = [
        str(native_file("fretsaw-run")),
        str(artifact),
        "--ids",
        ",".join(map(str, prompt)),
        "--max-new-tokens",
        str(count),
    ]
    done = subprocess.run(
        [*command, "--ignore-eos", "--json", "--threads", "2"], capture_output=True, text=True, timeout=120, check=True
    )
    tokens: list[int] = json.loads(done.stdout)["tokens"]
    return tokens


def first_real_difference(model: PreTrainedModel, prompt: list[int], got: list[int]) -> int | None:
    """Index of the first token that greedy transformers would not have chosen given the same past, near ties aside."""
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + got])).logits[0, len(prompt) - 1 : -1].numpy()
    best = logits.max(axis=-1)
    chosen = logits[np.arange(len(got)), got]
    wrong = np.flatnonzero(best - chosen > NEAR_TIE)
    return int(wrong[0]) if wrong.size else None


@pytest.mark.parametrize("name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.exhaustive) for n in FAMILIES])
def test_greedy_tokens_equal_transformers(name: str, tmp_path: Path) -> None:
    model = families.save(name, tmp_path / name)
    artifact = compile_model(tmp_path / name, tmp_path / f"{name}.fsaw")
    rng = np.random.default_rng(0)
    for length in (1, 7, 70):
        prompt = rng.integers(1, model.config.vocab_size, length).tolist()
        got = generate(artifact, prompt, 24)
        assert len(got) == 24
        assert first_real_difference(model, prompt, got) is None


def test_the_trained_moe_equals_transformers(shared: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    source = shared / "models" / "tiny-moe"
    artifact = compile_model(source, tmp_path / "moe.fsaw")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    prompt = np.random.default_rng(1).integers(2, 4096, 40).tolist()
    assert first_real_difference(model, prompt, generate(artifact, prompt, 64)) is None
