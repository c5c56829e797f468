"""The command line: help is quick and has examples, errors have one message, an exit code and no traceback."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fretsaw.backends.artifact import write_container
from fretsaw.ir import errors
from fretsaw.tools import cli

MANIFEST: dict[str, object] = {
    "format_version": 1,
    "producer": {"fretsaw": "0.1.0"},
    "model": {
        "family": "llama", "architecture": "LlamaForCausalLM", "kind": "decoder", "context": 8192, "vocab_size": 32,
        "checkpoint_sha256": "ab" * 32,
    },
    "generation": {"bos_token_id": None, "eos_token_ids": [2], "pad_token_id": None},
    "weights": {
        "section": "weights",
        "tensors": [{"name": "w", "dtype": "f16", "shape": [2, 16], "offset": 0, "bytes": 64}],
    },
    "kv": {"layers": 3, "kv_heads": 2, "key_size": 8, "value_size": 8, "page_tokens": 64, "dtype": "f32"},
    "program": {"entry": "step", "chunk_tokens": 512},
    "variants": [{"name": "llvm-x86-64-v3", "section": "code/llvm-x86-64-v3", "requires": ["avx2"]}],
    "memory": {"weights_bytes": 64, "kv_bytes_per_token": 384, "workspace_bytes": 100},
    "passes": [
        {"name": "raise_rope", "phase": "canonical", "keeps": "algebra", "options": {}, "hit": 6, "declined": 1}
    ],
}  # fmt: skip
EVIDENCE = {"passes": [{
    "name": "raise_rope", "phase": "canonical", "keeps": "algebra", "hit": 6, "demanded": 6, "sweeps": 2,
    "sites": ["model.layers.0.self_attn"] * 6, "declined": [["%a", "add", "model.layers.1", "no rotation"]],
    "nodes_before": 20, "nodes_after": 8, "check": {"status": "passed", "max_error": 1.5e-7},
}]}  # fmt: skip


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A small artifact whose code section would crash whoever loads it."""
    path = tmp_path / "model.fsaw"
    sections = [
        ("ir/packed", [b"graph @tiny() -> () {\n}\n"]),
        ("evidence.json", [json.dumps(EVIDENCE).encode()]),
        ("code/llvm-x86-64-v3", [b"not an ELF file"]),
        ("weights", [bytes(64)]),
    ]
    write_container(path, MANIFEST, sections)
    return path


def test_help_is_quick_and_complete() -> None:
    """Without torch, TVM or NumPy; processor time, best of three, so that a busy machine does not fail it."""
    program = "import sys; from fretsaw.tools.cli import run; run(['--help']); print(sorted(sys.modules))"
    best, out = 9e9, ""
    for _ in range(3):
        start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        best = min(best, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - start)
    assert best < 0.3
    assert all(name in out for name in cli.COMMANDS)
    assert not any(f"'{name}'" in out for name in ("numpy", "torch", "tvm", "rich"))


@pytest.mark.parametrize("name", [n for n in cli.COMMANDS if n != "run"])
def test_every_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Examples:" in out and f"fretsaw {name}" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fretsaw 0.1.0")


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["compile", "somewhere"], 2, "Missing option '-o'"),
        (["compile", "no-such-folder", "-o", "x.fsaw"], 3, "no-such-folder is not a directory"),
        (["compile", ".", "-o", "no/such/folder/x.fsaw"], 2, "no/such/folder does not exist"),
        (["compile", ".", "-o", "."], 2, "is a folder"),
        (["compile", ".", "-o", "x.fsaw", "--weights", "f8"], 2, "format is one of f64, f32, f16, bf16, int8, not f8"),
        (["verify", "missing.fsaw"], 7, "No such file"),
        (["inspect", "missing.fsaw"], 7, "No such file"),
        (["example", "gpt5", "x"], 2, "'gpt5' is not one of"),
        (["eval", "missing.fsaw", "--text", "missing.txt"], 2, "cannot read missing.txt"),
    ],
)
def test_errors(
    argv: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.run(argv) == code
    captured = capsys.readouterr()
    assert words in captured.err.replace("\n", " ") and "Traceback" not in captured.err and captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_error_has_its_own_exit_code() -> None:
    kinds = errors.FretsawError.__subclasses__()
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes) and not {0, 1, cli.EXIT_INTERNAL, cli.EXIT_INTERRUPT} & set(codes)


@pytest.mark.parametrize("argv", [["--debug", "verify", "missing.fsaw"], ["verify", "missing.fsaw", "--debug"]])
def test_debug_shows_the_traceback(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(argv) == 7
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ZeroDivisionError("division by zero"), cli.EXIT_INTERNAL, "internal error: ZeroDivisionError"),
        (MemoryError(), cli.EXIT_INTERNAL, "out of memory"),
        (KeyboardInterrupt(), cli.EXIT_INTERRUPT, "interrupted"),
        (errors.PassError("missed 3 sites"), 5, "PassError: missed 3 sites"),
    ],
)
def test_what_a_command_raises(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("fretsaw.backends.artifact.Container.open", fail)
    assert cli.run(["verify", "x.fsaw"]) == code
    assert words in capsys.readouterr().err


def test_verify(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["verify", str(artifact)]) == 0
    assert "good (4 sections" in capsys.readouterr().out
    assert cli.run(["verify", str(artifact), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] and report["sections"]["weights"]["bytes"] == 64
    raw = bytearray(artifact.read_bytes())
    raw[-1] ^= 1
    artifact.write_bytes(raw)
    assert cli.run(["verify", str(artifact)]) == 7
    assert "the digest of section weights does not match" in capsys.readouterr().err


def test_verify_reads_the_manifest_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.fsaw"
    write_container(path, {"format_version": 1}, [])
    assert cli.run(["verify", str(path)]) == 7
    assert "producer is missing" in capsys.readouterr().err


def test_inspect_tables(artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert cli.run(["inspect", str(artifact)]) == 0
    out = capsys.readouterr().out
    for words in ("LlamaForCausalLM", "8,192 tokens", "llvm-x86-64-v3", "ir/packed", "f16", "384 B", "raise_rope"):
        assert words in out
    assert "passed (max_error 1.5e-07)" in out


def test_inspect_ir_and_json(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", str(artifact), "--ir", "packed"]) == 0
    assert capsys.readouterr().out == "graph @tiny() -> () {\n}\n"
    assert cli.run(["inspect", str(artifact), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["manifest"] == MANIFEST and whole["evidence"] == EVIDENCE
    assert cli.run(["inspect", str(artifact), "--ir", "fused"]) == 7
    assert "there are ir/packed" in capsys.readouterr().err


def test_run_without_the_binary(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("fretsaw.tools.native.native_folders", lambda: [tmp_path])
    assert cli.run(["run", "model.fsaw", "--prompt", "Hello"]) == 2
    assert "fretsaw-run was not found" in capsys.readouterr().err


def test_run_becomes_the_binary(tmp_path: Path) -> None:
    """Arguments arrive as they are, the exit code comes back."""
    binary = tmp_path / "fretsaw-run"
    binary.write_text('#!/bin/sh\nfor a in "$@"; do echo "[$a]"; done\nexit 9\n')
    binary.chmod(0o755)
    argv = ["run", "m.fsaw", "--prompt", "two words", "--help", "--json"]
    code = f"from fretsaw.tools.cli import main; main({argv!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"FRETSAW_BUILD": str(tmp_path)}
    )
    assert done.returncode == 9
    assert done.stdout.split("\n")[:-1] == ["[m.fsaw]", "[--prompt]", "[two words]", "[--help]", "[--json]"]
