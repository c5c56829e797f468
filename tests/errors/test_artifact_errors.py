"""Whole texts of errors of the artifact reader."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from fretsaw.backends.artifact import Container, write_container
from fretsaw.ir.errors import ArtifactError
from tests.errors.kit import message, text


def damaged(folder: Path, change: str) -> Path:
    """An artifact of two sections with one kind of damage."""
    path = folder / "model.fsaw"
    write_container(path, {"format_version": 2}, [("code", [b"abc"]), ("weights", [bytes(64)])])
    data = bytearray(path.read_bytes())
    if change == "magic":
        data[:8] = b"GGUF\0\0\0\0"
    elif change == "old":
        data[8:16] = struct.pack("<II", 1, 1)
        data[96:128] = hashlib.sha256(data[:96]).digest()
    elif change == "digest":
        data[-1] ^= 1
    else:
        del data[-64:]
    path.write_bytes(data)
    return path


def test_another_kind_of_file(tmp_path: Path) -> None:
    path = damaged(tmp_path, "magic")
    assert message(ArtifactError, lambda: Container.open(path)) == text(f"""
        ArtifactError: not a Fretsaw artifact: it starts with b'GGUF\\x00\\x00\\x00\\x00', not b'FRETSAW\\x00'
          at    {path}
          hint  give a file that `fretsaw compile` wrote
    """)


def test_a_file_of_an_older_release(tmp_path: Path) -> None:
    path = damaged(tmp_path, "old")
    assert message(ArtifactError, lambda: Container.open(path)) == text(f"""
        ArtifactError: format version 1 was written by an older Fretsaw, this one reads version 2
          at    {path}
          hint  compile the checkpoint again
    """)


def test_a_section_that_was_changed(tmp_path: Path) -> None:
    path = damaged(tmp_path, "digest")
    assert message(ArtifactError, lambda: Container.open(path).verify()) == text(f"""
        ArtifactError: the artifact is damaged: the digest of section weights does not match
          at    {path}
          hint  copy or compile it again
    """)


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    path = damaged(tmp_path, "cut")
    size = path.stat().st_size
    assert message(ArtifactError, lambda: Container.open(path)) == text(f"""
        ArtifactError: the file is cut short: it has {size} of {size + 64} bytes
          at    {path}
          hint  copy or compile it again
    """)
