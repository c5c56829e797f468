"""Bytes of the container: header and table entries, to and from their fields. Source: docs/artifact.md."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

MAGIC = b"FRETSAW\0"
FORMAT_VERSION = 2  # of the container and of the manifest; version 1 had no section for the step program
OLDEST_READER = 2
HEADER_BYTES = 128
ENTRY_BYTES = 128
NAME_BYTES = 64
ALIGNMENT = 64
MAX_MANIFEST_BYTES = 64 << 20
MAX_SECTIONS = 4096

_HEAD = struct.Struct("<8sIIQQQQII32s8x")  # bytes 0 to 95, covered by the digest that follows them
_ENTRY = struct.Struct("<64sQQ32s16x")
assert _HEAD.size == HEADER_BYTES - 32 and _ENTRY.size == ENTRY_BYTES


def align(offset: int) -> int:
    """The next multiple of 64 that is not below ``offset``."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Header:
    """The first 128 bytes. Offsets and sizes in bytes; ``digest`` is the SHA-256 of manifest and table."""

    version: int
    oldest_reader: int
    file_bytes: int
    manifest_offset: int
    manifest_bytes: int
    table_offset: int
    section_count: int
    reserved: int
    digest: bytes

    def pack(self) -> bytes:
        head = _HEAD.pack(
            MAGIC, self.version, self.oldest_reader, self.file_bytes, self.manifest_offset,
            self.manifest_bytes, self.table_offset, self.section_count, self.reserved, self.digest,
        )  # fmt: skip
        return head + hashlib.sha256(head).digest()

    @staticmethod
    def unpack(raw: bytes) -> Header:
        """Fields of ``raw`` (at least 96 bytes), unchecked."""
        return Header(*_HEAD.unpack_from(raw)[1:])


@dataclass(frozen=True)
class SectionEntry:
    """One line of the section table."""

    name: str
    offset: int
    nbytes: int
    digest: bytes

    @property
    def end(self) -> int:
        return self.offset + self.nbytes

    def pack(self) -> bytes:
        return _ENTRY.pack(self.name.encode(), self.offset, self.nbytes, self.digest)


def unpack_entry(raw: bytes) -> tuple[bytes, int, int, bytes]:
    """Padded name, offset, size and digest of one table entry, unchecked."""
    name, offset, nbytes, digest = _ENTRY.unpack(raw)
    return name, offset, nbytes, digest
