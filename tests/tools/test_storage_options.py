"""``--weights`` and ``--kv``: short forms of passes, in the ledger, under the limits; what a checkpoint has is kept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from fretsaw.backends.artifact import Container
from fretsaw.backends.artifact.manifest import tensors
from fretsaw.tools import cli
from tests import families


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose checkpoint is in bf16."""
    folder = tmp_path_factory.mktemp("half")
    families.save("llama", folder, torch.bfloat16)
    return folder


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in f32."""
    folder = tmp_path_factory.mktemp("full")
    families.save("llama", folder)
    return folder


def compiled(source: Path, output: Path, *options: str) -> Container:
    assert cli.run(["compile", str(source), "-o", str(output), "--cpu", "x86-64-v3", "--quiet", *options]) == 0
    return Container.open(output)


def kinds(container: Container) -> Counter[str]:
    """Tensors of matrices by dtype."""
    return Counter(t.dtype for t in tensors(container.manifest) if len(t.shape) > 1)


def entry(container: Container, name: str) -> dict[str, Any]:
    (found,) = [e for e in json.loads(container.text("evidence.json"))["passes"] if e["name"] == name]
    assert isinstance(found, dict)
    return found


def test_a_checkpoint_in_bf16_stays_bf16_bit_for_bit(half: Path, tmp_path: Path) -> None:
    kept = compiled(half, tmp_path / "kept.fsaw")
    wide = compiled(half, tmp_path / "wide.fsaw", "--weights", "f32")
    assert set(kinds(kept)) == {"bf16"} and set(kinds(wide)) == {"f32"}
    done = entry(wide, "store_weights")
    assert done["keeps"] == "bits" and done["check"]["max_error"] == 0
    assert done["hit"] == len(done["stored"]) == sum(kinds(wide).values())
    assert all((s["before"], s["after"]) == ("bf16", "f32") for s in done["stored"])
    assert all(s["bytes_after"] == 2 * s["bytes_before"] for s in done["stored"])
    assert done["cost_after"]["weight_bytes"] > done["cost_before"]["weight_bytes"]
    sizes = [sum(t.nbytes for t in tensors(c.manifest) if len(t.shape) > 1) for c in (kept, wide)]
    assert 2 * sizes[0] == sizes[1]
    assert " as bf16 = " in kept.text("ir/packed") and " as bf16 = " not in wide.text("ir/packed").split("cast(")[0]


def test_narrower_weights_are_measured_and_held(full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The short form and the pass are one entry; a limit that it breaks ends the compile."""
    short = compiled(full, tmp_path / "short.fsaw", "--weights", "f16", "--max-kl", "0.1")
    long = compiled(full, tmp_path / "long.fsaw", "--pass", "store_weights:format=f16", "--max-kl", "0.1")
    assert (tmp_path / "short.fsaw").read_bytes() == (tmp_path / "long.fsaw").read_bytes()
    assert set(kinds(short)) == {"f16"}
    done = entry(long, "store_weights")
    assert done["keeps"] == "budget" and done["check"]["status"] == "passed" and 0 < done["check"]["kl"] < 0.1
    assert all(2 * s["bytes_after"] == s["bytes_before"] for s in done["stored"])
    argv = ["compile", str(full), "-o", str(tmp_path / "x.fsaw"), "--quiet", "--weights", "bf16", "--max-kl", "1e-12"]
    assert cli.run(argv) != 0
    assert "store_weights" in capsys.readouterr().err and not (tmp_path / "x.fsaw").exists()


def test_a_narrower_cache_is_measured_and_held(full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    narrow = compiled(full, tmp_path / "narrow.fsaw", "--kv", "int8")
    assert narrow.manifest["kv"]["dtype"] == "int8"  # type: ignore[index]
    assert "handle<kv_cache, int8>" in narrow.text("ir/packed")
    done = entry(narrow, "store_kv")
    assert done["keeps"] == "budget" and done["check"]["kl"] > 0
    assert done["hit"] == len(done["stored"]) == narrow.manifest["kv"]["layers"]  # type: ignore[index]
    one = done["stored"][0]
    assert one["before"] == "f32" and one["after"] == "int8" and one["bytes_after"] < one["bytes_before"] / 2
    argv = ["compile", str(full), "-o", str(tmp_path / "x.fsaw"), "--quiet", "--kv", "int8", "--max-kl", "1e-12"]
    assert cli.run(argv) != 0
    assert "store_kv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--weights", "f16", "--pass", "store_weights"],
            "--weights is short for store_weights, which is",
        ),
        (["--kv", "f16", "--pass", "store_kv"], "--kv is short for store_kv, which is requested too"),
        (["--weights", "f8"], "format is one of f64, f32, f16, bf16, int8, not f8"),
        (["--kv", "int4"], "format is one of f64, f32, f16, bf16, int8, not int4"),
    ],
)
def test_refused(
    options: list[str], words: str, full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["compile", str(full), "-o", str(tmp_path / "x.fsaw"), "--quiet", *options]) == 2
    assert words in capsys.readouterr().err


def test_formats_without_kernels_are_refused(full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, words in (
        (["--weights", "int8"], "has no kernels for weights in int8, only in f32, f16, bf16"),
        (["--kv", "bf16"], "has no kernels for a KV cache in bf16, only in f32, f16, int8"),
    ):
        assert cli.run(["compile", str(full), "-o", str(tmp_path / "x.fsaw"), "--quiet", *options]) != 0
        assert words in capsys.readouterr().err


def test_a_format_that_is_there_already_says_so(half: Path, tmp_path: Path) -> None:
    done = entry(compiled(half, tmp_path / "same.fsaw", "--weights", "bf16"), "store_weights")
    assert done["hit"] == 0 and "stored" not in done
    assert {reason for *_, reason in done["declined"]} == {"the weight is kept as bf16 already"}


def test_an_encoder_has_no_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    families.save("bert", tmp_path / "model")
    argv = ["compile", str(tmp_path / "model"), "-o", str(tmp_path / "x.fsaw"), "--quiet", "--kv", "int8"]
    assert cli.run(argv) != 0
    assert "store_kv was requested and reached no site" in capsys.readouterr().err
