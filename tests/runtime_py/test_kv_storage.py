"""Caches in f16 and int8 from compile to tokens: batched with shared prefixes, counted; wrong ones refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from fretsaw.backends.artifact import Container
from fretsaw.backends.tvm.kv_storage import KvType, row_bytes
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.tools.compiler import CompileOptions, compile_checkpoint
from fretsaw.tools.reporter import Reporter
from tests import families
from tests.runtime_py.conftest import Tiny
from tests.runtime_py.test_batch_models import alone, requests
from tests.storage import stores

pytestmark = pytest.mark.native
PAGE = 64


@pytest.mark.parametrize(("family", "kv"), [("llama", "int8"), ("gemma3", "f16")])
def test_tokens_do_not_depend_on_the_batch(binary: Path, tmp_path: Path, family: str, kv: KvType) -> None:
    """Prompts share pages, are cut into chunks and copied on write: the tokens are those of single runs."""
    model = families.save(family, tmp_path / "model")
    artifact, source, out = (tmp_path / name for name in ("model.fsaw", "in.jsonl", "out.jsonl"))
    options = CompileOptions(TvmOptions(cpus=("x86-64-v3",), chunk_tokens=128), stores(kv=kv))
    compile_checkpoint(tmp_path / "model", artifact, options, Reporter(quiet=True))
    asked = requests(model.config.vocab_size)[5:]  # prompts that begin alike, with and without draws
    source.write_text("".join(json.dumps(r) + "\n" for r in asked))
    want = [alone(binary, artifact, r) for r in asked]
    command = [str(x) for x in (binary, artifact, "--batch", source, "--out", out, "--json", "--max-batch-tokens", 7)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    assert [json.loads(line)["tokens"] for line in out.read_text().splitlines()] == want
    assert json.loads(done.stdout)["shared_tokens"] > 0
    told = Container.open(artifact).manifest["kv"]
    assert isinstance(told, Mapping) and told["dtype"] == kv
    pair = sum(row_bytes(told[size], kv) for size in ("key_size", "value_size"))
    command = [str(binary), str(artifact), "--ids", "1,2,3", "-n", "70", "--ignore-eos", "--json"]
    report = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)
    pages = -(-(3 + 70) // PAGE) * told["layers"] * told["kv_heads"]
    assert report["memory"]["kv_bytes"] == pages * PAGE * pair


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"dtype": "i4"}, 11, "unsupported artifact: manifest: kv.dtype: 'i4' is not one of f32, f16, int8"),
        ({"dtype": None}, 7, "corrupt artifact: manifest: kv.dtype: expected a string"),
        ({"dtype": "f16"}, 1, "the step program failed"),  # the code was made for f32
        ({"dtype": "int8"}, 1, "the step program failed"),
        (
            {"layers": 65536, "kv_heads": 65536, "page_tokens": 65536, "key_size": 1 << 20},
            7,
            "corrupt artifact: manifest: kv: a page of every layer and head takes over 1 TiB",
        ),
    ],
)
def test_caches_that_do_not_fit_are_refused(
    binary: Path, tiny: Tiny, change: Mapping[str, object], code: int, words: str
) -> None:
    path = tiny.variation(lambda m, s: m["kv"].update(change))  # type: ignore[attr-defined]
    done = subprocess.run([str(binary), str(path), "--ids", "1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert words in done.stderr
