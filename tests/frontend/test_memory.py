"""Capturing a large checkpoint loads none of its weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

LIMIT = 300  # MB above the process before capture; the weights are 3.8 GB in f32
PROGRAM = """
import pathlib, resource, sys
from fretsaw.frontend.capture import capture
from fretsaw.frontend.checkpoint import load_checkpoint
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
graph = capture(load_checkpoint(pathlib.Path(sys.argv[1])))
print(peak() - before, graph.count("attention"), sum(c.nbytes for c in graph.consts.values()) >> 20)
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A Llama of two layers in 8 B's sizes; the weight file is sparse and takes no disk."""
    config = transformers.LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=2, num_attention_heads=32,
        num_key_value_heads=8, tie_word_embeddings=True, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    header, at = {}, 0
    for name, parameter in model.named_parameters():
        end = at + 2 * parameter.numel()
        header[name] = {"dtype": "BF16", "shape": list(parameter.shape), "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + at)
    return tmp_path


def test_no_weight_is_loaded(large: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(large)], text=True, capture_output=True, check=True)
    megabytes, layers, weights = map(int, done.stdout.split())
    assert layers == 2 and weights > 3000
    assert megabytes < LIMIT
