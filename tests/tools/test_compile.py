"""Compiling a small random Llama through the command line: contents, same bytes twice, nothing half-written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from fretsaw.backends.artifact import Container, validate_manifest
from fretsaw.backends.program.serialize import from_bytes
from fretsaw.backends.program.verify import Beside, verify_program
from fretsaw.ir import parse
from fretsaw.tools import cli


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, 32 wide, no tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, eos_token_id=2, bos_token_id=1, tie_word_embeddings=True,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("checkpoint")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def compile_to(path: Path, checkpoint: Path, *options: str) -> int:
    return cli.run(["compile", str(checkpoint), "-o", str(path), "--cpu", "x86-64-v3", "--quiet", *options])


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "model.fsaw"
    assert compile_to(path, checkpoint, "--dump-ir", str(path.parent / "ir")) == 0
    return path


def test_contents(artifact: Path, checkpoint: Path) -> None:
    container = Container.open(artifact)
    container.verify()
    validate_manifest(container.manifest, {e.name: e.nbytes for e in container.sections.values()})
    phases = ["captured", "canonical", "fused", "packed"]
    others = ["evidence.json", "program", "code/llvm-x86-64-v3", "weights"]
    assert list(container.sections) == [*(f"ir/{p}" for p in phases), *others]
    assert bytes(container.section("code/llvm-x86-64-v3")[:4]) == b"\x7fELF"
    assert container.manifest["generation"] == {"bos_token_id": 1, "eos_token_ids": [2], "pad_token_id": None}
    assert container.manifest["backend"] == {
        "name": "cpu",
        "options": {"weights": "f32", "cpus": ["x86-64-v3"], "chunk_tokens": 512, "page_tokens": 64, "kv": "f32"},
    }
    assert "tokenizer" not in container.manifest
    program = from_bytes(container.section("program"))
    verify_program(program, Beside.of(container.manifest))
    assert [entry.name for entry in program.entries] == ["step"]
    evidence = json.loads(container.text("evidence.json"))
    ropes = next(e for e in evidence["passes"] if e["name"] == "raise_rope")
    assert ropes["hit"] == 4 and ropes["check"]["status"] == "passed"  # q and k of two layers, small enough to check
    for phase, dumped in zip(phases, sorted((artifact.parent / "ir").iterdir()), strict=True):
        assert dumped.read_text() == container.text(f"ir/{phase}")


def test_ir_of_an_artifact_parses(artifact: Path) -> None:
    """Constants print as references: the text alone is enough to print the program again."""
    graph = parse(Container.open(artifact).text("ir/packed"))
    assert graph.phase == "packed" and graph.count("cached_attention") == 2


def test_same_bytes_twice(artifact: Path, checkpoint: Path, tmp_path: Path) -> None:
    """The second time with the backend named and its option in the long form."""
    again = ["-o", str(tmp_path / "again.fsaw"), "--backend", "cpu:cpus=x86-64-v3", "--quiet"]
    assert cli.run(["compile", str(checkpoint), *again]) == 0
    first, second = (hashlib.sha256(p.read_bytes()).hexdigest() for p in (artifact, tmp_path / "again.fsaw"))
    assert first == second


def test_json_table(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.fsaw"
    assert cli.run(["compile", str(checkpoint), "-o", str(out), "--cpu", "x86-64-v3", "--no-check", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"] == out.stat().st_size == report["phases"][-1]["nbytes"]
    by_name = {phase["name"]: phase for phase in report["phases"]}
    assert by_name["capture"]["nodes"] > by_name["passes: packed"]["nodes"] > 0
    assert by_name["passes: canonical"]["sites"] > 0


def test_full_disk(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk fills while weights are written: one message, exit code 7, nothing left."""
    import errno

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fretsaw.backends.artifact.writer.os.fsync", full)
    assert compile_to(tmp_path / "m.fsaw", checkpoint, "--no-check") == 7
    assert "the disk is full" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_broken_checkpoints(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    assert compile_to(tmp_path / "m.fsaw", broken) == 3
    assert "config.json" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]
