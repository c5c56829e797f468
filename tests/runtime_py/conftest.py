"""A tiny artifact with a closed-form program, and the built binary and library."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.runtime_py import packing, tiny_program

CONTEXT = 48
EOS = 257


def build_dir() -> Path:
    """Where CMake built: FRETSAW_BUILD or build/cmake."""
    return Path(os.environ.get("FRETSAW_BUILD", Path(__file__).resolve().parents[2] / "build/cmake"))


@dataclass
class Tiny:
    """Parts of a valid artifact; tests change one and write it."""

    manifest: dict[str, object]
    sections: dict[str, bytes]
    path: Path
    _count: int = field(default=0)

    def variation(self, change: Callable[[dict[str, object], dict[str, bytes]], object]) -> Path:
        """Write a copy with ``change`` applied to manifest and sections."""
        manifest, sections = copy.deepcopy(self.manifest), dict(self.sections)
        change(manifest, sections)
        self._count += 1
        return packing.write(self.path.with_name(f"v{self._count}.fsaw"), manifest, sections)


@pytest.fixture(scope="session")
def binary() -> Path:
    """fretsaw-run."""
    path = build_dir() / "fretsaw-run"
    if not path.is_file():
        pytest.skip(f"{path} is not built: run `make build` or set FRETSAW_BUILD")
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny artifact, built once."""
    folder = tmp_path_factory.mktemp("tiny")
    code = folder / "code.so"
    # In a process of its own: the compiler would leave its threads and 250 MB in this one.
    subprocess.run([sys.executable, tiny_program.__file__, str(code)], check=True, capture_output=True)
    bias = (np.arange(tiny_program.VOCAB, dtype=np.float32) / 1024).tobytes()
    half_offset = -(-len(bias) // 64) * 64
    weights = bias.ljust(half_offset, b"\0") + np.full((2, 3), 1.5, dtype=np.float16).tobytes()
    manifest: dict[str, object] = {
        "format_version": 2,
        "producer": {"fretsaw": "0.1.0"},
        "model": {
            "family": "tiny",
            "architecture": "TinyForCausalLM",
            "kind": "decoder",
            "context": CONTEXT,
            "vocab_size": tiny_program.VOCAB,
            "checkpoint_sha256": "0" * 64,
        },
        "generation": {"bos_token_id": 256, "eos_token_ids": [EOS], "pad_token_id": None},
        "tokenizer": {
            "section": "tokenizer.json",
            "chat_template": "chat_template",
            "bos_token": "<s>",
            "eos_token": "</s>",
        },
        "weights": {
            "section": "weights",
            "tensors": [
                {"name": "bias", "dtype": "f32", "shape": [tiny_program.VOCAB], "offset": 0, "bytes": len(bias)},
                {"name": "half", "dtype": "f16", "shape": [2, 3], "offset": half_offset, "bytes": 12},
            ],
        },
        "kv": {
            "layers": tiny_program.LAYERS,
            "kv_heads": tiny_program.HEADS,
            "key_size": tiny_program.KEY,
            "value_size": tiny_program.VALUE,
            "page_tokens": tiny_program.PAGE,
            "dtype": "f32",
            "planes": [
                {"name": "k_pages", "dtype": "f32", "shape": [tiny_program.KEY, tiny_program.PAGE]},
                {"name": "v_pages", "dtype": "f32", "shape": [tiny_program.PAGE, tiny_program.VALUE]},
            ],
        },
        "program": {"section": "program", "entry": "step", "chunk_tokens": 7},
        "variants": [
            {"name": "llvm-future", "section": "code/llvm-x86-64", "requires": ["avx2", "avx9000"]},
            {"name": "llvm-x86-64", "section": "code/llvm-x86-64", "requires": []},
        ],
        "memory": {"weights_bytes": len(weights), "kv_bytes_per_token": 216, "workspace_bytes": 0},
        "passes": [],
    }
    sections = {
        "tokenizer.json": byte_tokenizer(),
        "chat_template": CHAT_TEMPLATE.encode(),
        "weights": weights,
        "program": tiny_program.section(),
        "code/llvm-x86-64": code.read_bytes(),
    }
    path = packing.write(folder / "tiny.fsaw", manifest, sections)
    return Tiny(manifest, sections, path)


CHAT_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)


def byte_tokenizer() -> bytes:
    """A tokenizer.json with one token per byte (id = byte for ASCII), <s> = 256, </s> = 257."""
    import json

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {b: chr(b) for b in printable}
    extra = iter(range(256, 512))
    for byte in range(256):
        if byte not in alphabet:
            alphabet[byte] = chr(next(extra))
    vocab = {alphabet[b]: b for b in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    data = json.loads(tokenizer.to_str())
    assert [t["id"] for t in data["added_tokens"]] == [256, EOS]
    return json.dumps(data).encode()
