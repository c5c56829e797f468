"""``--kv``: what inspect shows of it, and a manifest with a format that does not exist."""

from __future__ import annotations

from typing import Any

import pytest

from fretsaw.backends.artifact import validate_manifest
from fretsaw.ir.errors import ArtifactError
from fretsaw.tools.tables import memory_rows
from tests.tools.test_cli import MANIFEST

SECTIONS = {"weights": 64, "code/llvm-x86-64-v3": 4}


def stored_as(kv: str, token: int) -> dict[str, Any]:
    manifest: dict[str, Any] = dict(MANIFEST)
    return manifest | {
        "kv": {**manifest["kv"], "dtype": kv},
        "memory": {**manifest["memory"], "kv_bytes_per_token": token},
    }


@pytest.mark.parametrize(
    ("kv", "token", "shown"),
    [
        ("f32", 384, "384 B (f32)"),
        ("f16", 192, "192 B (f16; 384 B in f32)"),
        ("int8", 144, "144 B (int8; 384 B in f32)"),
    ],
)
def test_inspect_shows_the_storage_and_what_it_saves(kv: str, token: int, shown: str) -> None:
    manifest = stored_as(kv, token)
    validate_manifest(manifest, SECTIONS)
    assert ("KV cache, a token", shown) in memory_rows(manifest)


def test_unknown_storage_is_refused() -> None:
    with pytest.raises(ArtifactError) as refused:
        validate_manifest(stored_as("int4", 1), SECTIONS)
    assert refused.value.what == "manifest: kv.dtype must be one of f32, f16, int8, is 'int4'"
