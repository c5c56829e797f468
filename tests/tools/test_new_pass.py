"""`fretsaw new-pass`: what it writes is green, compiles a model, and is never written over something else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fretsaw.backends.artifact import Container
from fretsaw.ir import parse
from fretsaw.passes.kit.compose import compose
from fretsaw.passes.kit.recipe import load_recipe
from fretsaw.passes.pipeline import run_pipeline
from fretsaw.tools import cli
from tests.passes.llama_text import llama


@pytest.fixture
def written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "new"
    assert cli.run(["new-pass", "split_gain", "--dir", str(folder)]) == 0
    assert capsys.readouterr().out == (
        f"wrote {folder}/split_gain.py\nwrote {folder}/test_split_gain.py\nwrote {folder}/split_gain.toml\n"
        f"next: pytest {folder}/test_split_gain.py\n"
        f"      fretsaw compile CHECKPOINT -o model.fsaw --recipe {folder}/split_gain.toml\n"
    )
    return folder


def pytest_in(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(folder)]
    # Bytecode is matched to its source by size and second: too coarse for two edits in one second.
    settings = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=settings)


def test_the_new_test_is_green_and_can_fail(written: Path) -> None:
    done = pytest_in(written)
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout
    path = written / "split_gain.py"
    path.write_text(path.read_text().replace('"mul", plain, gain', '"mul", gain, plain'))
    assert "1 failed" in pytest_in(written).stdout  # the golden text alone: multiplication commutes
    path.write_text(path.read_text().replace('"mul", gain, plain', '"add", plain, gain'))
    assert "2 failed" in pytest_in(written).stdout


def test_the_new_files_are_in_house_style(written: Path, root: Path) -> None:
    ruff = [sys.executable, "-m", "ruff"]
    settings = ["--config", str(root / "pyproject.toml"), "--config", 'lint.isort.known-first-party=["fretsaw"]']
    subprocess.run([*ruff, "check", "--no-cache", *settings, str(written)], check=True, capture_output=True)
    subprocess.run([*ruff, "format", "--check", "--no-cache", *settings, str(written)], check=True, capture_output=True)


def test_the_recipe_runs_on_a_llama(written: Path) -> None:
    recipe = load_recipe(written / "split_gain.toml")
    _, passes = compose(recipe)
    result = run_pipeline(parse(llama(2), seed=0), extra=passes, check=True)
    entry = next(e for e in result.ledger if e.name == "split_gain")
    assert entry.hit == 5 and entry.requested and entry.check["status"] == "passed"
    assert entry.options == {"layers": ()} and entry.origin == f"plugin {written}/split_gain.py"
    norms = [n for n in result.graph.nodes if n.op == "rms_norm"]
    assert len(norms) == 5 and all(n.get("gain") is None for n in norms)


def test_a_model_compiles_with_it(written: Path, tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tiny")
    output, dump = tmp_path / "m.fsaw", tmp_path / "ir"
    options = ["--cpu", "x86-64-v3", "--quiet", "--recipe", str(written / "split_gain.toml"), "--dump-ir", str(dump)]
    assert cli.run(["compile", str(tmp_path / "tiny"), "-o", str(output), *options]) == 0
    container = Container.open(output)
    manifest = container.manifest
    assert isinstance(manifest["passes"], list)
    entry = next(e for e in manifest["passes"] if e["name"] == "split_gain")
    assert entry["options"] == {"layers": []} and entry["hit"] == 5
    evidence = next(e for e in json.loads(container.text("evidence.json"))["passes"] if e["name"] == "split_gain")
    assert evidence["origin"] == f"plugin {written}/split_gain.py" and evidence["check"]["status"] == "passed"
    names = ["00_captured", "01_split_gain", "02_canonical", "03_fused", "04_packed"]
    assert sorted(p.stem for p in dump.iterdir()) == names
    assert (dump / "01_split_gain.fir").read_text().count(", split_gain>\n") == 10  # a norm and a product, five times


@pytest.mark.parametrize("taken", ["split_gain.py", "test_split_gain.py", "split_gain.toml"])
def test_files_are_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str], taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    assert cli.run(["new-pass", "split_gain", "--dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"fretsaw: UsageError: {tmp_path}/{taken} exists already\n"
        "  hint  choose another name or folder; nothing was written\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == [taken] and (tmp_path / taken).read_text() == "mine"


@pytest.mark.parametrize("name", ["Split", "split-gain", "class", "2fold", "a__b", "_a", "", "x" * 41, "../x"])
def test_names_that_no_pass_can_have(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert cli.run(["new-pass", "--dir", str(tmp_path), "--", name]) == 2
    assert capsys.readouterr().err == (
        f'fretsaw: UsageError: "{name}" cannot name a pass\n'
        "  hint  lower-case words with underscores, a verb first (fold_bias), at most 40 characters\n"
    )
    assert not list(tmp_path.iterdir())


def test_the_name_of_a_pass_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["new-pass", "dce", "--dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "fretsaw: UsageError: there is a pass dce already (built-in)\n  hint  `fretsaw passes` lists all names\n"
    )
