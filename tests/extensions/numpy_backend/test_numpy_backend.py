"""A backend from a package: listed, compiled with, run, refused by the C++ runtime; and nothing else knows of it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from fretsaw.backends.artifact import Container, validate_manifest
from fretsaw.backends.lowering import gaps
from fretsaw.tools import cli
from fretsaw.tools.native import native_file
from tests import families
from tests.extensions.numpy_backend.backend import backend
from tests.extensions.numpy_backend.runner import Runner

HERE = Path(__file__).parent
NAME = HERE.name
PUBLIC = {"backends.artifact", "backends.backend", "backends.built", "backends.lowering", "backends.tensor"}
PUBLIC |= {"ir", "ir.errors", "ir.phases", "ir.types"}
SOURCES = {".py", ".toml", ".txt", ".cc", ".h", ".sh", ""}  # "" for the Makefile and its like


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The one registration, as pip leaves it."""
    info = tmp_path_factory.mktemp("site") / "fretsaw_numpy-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fretsaw-numpy\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[fretsaw.backends]\nnumpy = tests.extensions.{NAME}.backend:backend\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(info.parent))
        yield


@dataclass(frozen=True)
class Compiled:
    model: PreTrainedModel
    source: Path
    artifact: Path


@pytest.fixture(scope="module")
def llama(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """A tiny Llama, compiled for steps of 5 tokens."""
    folder = tmp_path_factory.mktemp("llama")
    model = families.save("llama", folder / "llama")
    assert compile_with("numpy:chunk_tokens=5", folder / "llama", folder / "m.fsaw") == 0
    return Compiled(model, folder / "llama", folder / "m.fsaw")


def compile_with(backend: str, source: Path, output: Path, *more: str) -> int:
    argv = ["compile", str(source), "-o", str(output), "--backend", backend, "--quiet", "--no-check", *more]
    return cli.run(argv)


def test_it_is_listed_and_answers_for_every_op(capsys: pytest.CaptureFixture[str]) -> None:
    assert gaps(backend.phase, backend.lowerings()) == ([], [])
    assert cli.run(["backends", "numpy", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["origin"] == "package fretsaw-numpy 0.1" and found["ops"]["refused"] == 2
    assert [option["name"] for option in found["options"]] == ["chunk_tokens"]


def test_it_compiles_and_runs_what_transformers_does(llama: Compiled) -> None:
    runner = Runner.open(llama.artifact)
    assert runner.chunk == 5
    rng = np.random.default_rng(0)
    for length in (1, 5, 23):
        prompt = rng.integers(1, llama.model.config.vocab_size, length).tolist()
        with torch.inference_mode():
            want = llama.model.generate(
                torch.tensor([prompt]), do_sample=False, max_new_tokens=8, min_new_tokens=8, pad_token_id=0
            )
        assert runner.generate(prompt, 8) == want[0, length:].tolist()


def test_what_the_artifact_says(llama: Compiled, capsys: pytest.CaptureFixture[str]) -> None:
    container = Container.open(llama.artifact)
    manifest = container.manifest
    validate_manifest(manifest, {entry.name: entry.nbytes for entry in container.sections.values()})
    assert manifest["backend"] == {"name": "numpy", "options": {"chunk_tokens": 5}}
    assert manifest["variants"] == [
        {"name": "numpy", "section": "code/numpy", "loader": "numpy", "requires": ["loader numpy"]}
    ]
    assert manifest["producer"]["numpy"] == np.__version__ and "tvm" not in manifest["producer"]  # type: ignore[index, operator]
    assert cli.run(["inspect", str(llama.artifact)]) == 0 == cli.run(["verify", str(llama.artifact)])
    out = capsys.readouterr().out
    assert "loader numpy" in out and "numpy:chunk_tokens=5" in out


@pytest.mark.native
def test_the_runtime_refuses_it_by_name(llama: Compiled) -> None:
    command = [str(native_file("fretsaw-run")), str(llama.artifact), "--ids", "1,2,3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 8 and "numpy needs loader numpy" in done.stderr and done.stdout == ""


def test_what_it_cannot_do_is_refused(llama: Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "m.fsaw"
    assert compile_with("numpy:chunk_tokens=0", llama.source, target) == 2
    assert "chunk_tokens must be at least 1, is 0" in capsys.readouterr().err
    assert compile_with("numpy", llama.source, target, "--cpu", "x86-64-v3") == 2
    assert "--cpu is short for the option cpus, which the backend numpy has not" in capsys.readouterr().err
    families.save("bert", tmp_path / "bert")
    assert compile_with("numpy", tmp_path / "bert", target) == 6
    err = capsys.readouterr().err
    assert "the numpy backend has no lowering for segment_attention" in err and "runs decoders only" in err
    assert not target.exists()


def test_nothing_outside_its_folder_names_it(root: Path) -> None:
    folders = [
        f for f in root.iterdir() if f.is_dir() and not f.name.startswith(".") and f.name not in ("build", "out")
    ]
    files = [p for f in folders for p in f.rglob("*") if p.is_file()] + [p for p in root.iterdir() if p.is_file()]
    outside = [p for p in files if p.suffix in SOURCES and HERE not in p.parents and "__pycache__" not in p.parts]
    lines = [line for p in outside for line in p.read_text(encoding="utf-8").splitlines() if NAME in line]
    assert len(outside) > 500 and len(lines) == 0


def test_the_page_shows_this_code(root: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (root / "docs" / "backends.md").read_text(encoding="utf-8"), re.S)
    source = (HERE / "backend.py").read_text(encoding="utf-8")
    assert len(blocks) == 3 and all(block in source for block in blocks)


@pytest.mark.parametrize("file", ["backend.py", "runner.py"])
def test_it_uses_public_interfaces_only(file: str) -> None:
    tree = ast.parse((HERE / file).read_text())
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    used = {str(node.module).removeprefix("fretsaw.") for node in froms if str(node.module).startswith("fretsaw")}
    assert used and used <= PUBLIC
    assert not [alias.name for node in froms for alias in node.names if alias.name.startswith("_") and node.level == 0
                and node.module != "__future__"]  # fmt: skip
