"""Whole texts of errors of the frontend: what is missing in a checkpoint, and what is not supported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from fretsaw.frontend.capture import capture
from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.ir.errors import CaptureError
from tests import families
from tests.errors.kit import message, text


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    families.save("llama", tmp_path)
    return tmp_path


def test_a_missing_tensor(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    assert message(CaptureError, lambda: capture(load_checkpoint(checkpoint))) == text(f"""
        CaptureError: tensor model.layers.1.mlp.up_proj.weight is missing
          at    {checkpoint}
          hint  the configuration asks for [80, 48]; the checkpoint is incomplete or another model's
    """)


def test_a_model_type_that_is_not_supported(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert message(CaptureError, lambda: load_checkpoint(checkpoint)) == text(f"""
        CaptureError: model type 'mamba' is not supported
          at    {checkpoint / "config.json"}
          hint  supported: llama, qwen3, gemma3_text, phi3, gpt_neox, mixtral, qwen3_moe, olmoe, gpt_oss, deepseek_v3, \
bert, modernbert
    """)


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert message(CaptureError, lambda: load_checkpoint(tmp_path / "nothing")) == text(f"""
        CaptureError: {tmp_path / "nothing"} is not a directory
          hint  give the directory that holds config.json
    """)
