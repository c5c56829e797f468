"""Write a container: streamed, atomic, and the same bytes for the same input.

The file appears under its name only when it is whole: bytes go to a hidden file beside it, which is flushed
to the disk and renamed. Whatever goes wrong, the hidden file is removed and an older file of that name stays.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from fretsaw.backends.artifact.layout import (
    ENTRY_BYTES,
    FORMAT_VERSION,
    HEADER_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_SECTIONS,
    NAME_BYTES,
    OLDEST_READER,
    Header,
    SectionEntry,
    align,
)
from fretsaw.ir.errors import ArtifactError

Chunk = bytes | bytearray | memoryview
Sections = Sequence[tuple[str, Iterable[Chunk]]]
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def write_container(path: Path, manifest: Mapping[str, object], sections: Sections) -> int:
    """Write ``path`` and return its size in bytes.

    Args:
        manifest: JSON values only; key order is kept, so equal input gives equal bytes.
        sections: Name and chunks of bytes of each section; chunks are drawn once, in order, while writing.

    Raises:
        ArtifactError: bad section names, a manifest over 64 MiB, or a disk that is full or not writable.
    """
    path = Path(path)
    raw_manifest = _manifest_bytes(manifest)
    _check_names([name for name, _ in sections])
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise _os_error(path, 0, error) from None
    stream = os.fdopen(descriptor, "wb")
    try:
        size = _write(stream, raw_manifest, sections)
        os.fchmod(descriptor, 0o666 & ~_umask())
        os.fsync(descriptor)
        stream.close()
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:  # an interrupt must not leave half a file either
        written = os.path.getsize(temporary)
        os.unlink(temporary)
        _close_quietly(stream)
        if isinstance(error, OSError):
            raise _os_error(path, written, error) from None
        raise
    return size


def _write(stream: BinaryIO, raw_manifest: bytes, sections: Sections) -> int:
    table_offset = align(HEADER_BYTES + len(raw_manifest))
    offset = table_offset + ENTRY_BYTES * len(sections)
    stream.write(bytes(offset))  # header, manifest and table are filled in once the digests are known
    entries: list[SectionEntry] = []
    for name, chunks in sections:
        stream.write(bytes(align(offset) - offset))
        offset = align(offset)
        digest, nbytes = hashlib.sha256(), 0
        for chunk in chunks:
            view = memoryview(chunk)
            digest.update(view)
            stream.write(view)
            nbytes += view.nbytes
        entries.append(SectionEntry(name, offset, nbytes, digest.digest()))
        offset += nbytes
    table = b"".join(entry.pack() for entry in entries)
    covered = hashlib.sha256(raw_manifest + table).digest()
    header = Header(
        FORMAT_VERSION,
        OLDEST_READER,
        offset,
        HEADER_BYTES,
        len(raw_manifest),
        table_offset,
        len(entries),
        0,
        covered,
    )
    stream.seek(0)
    stream.write(header.pack() + raw_manifest)
    stream.seek(table_offset)
    stream.write(table)
    stream.flush()
    return offset


def _manifest_bytes(manifest: Mapping[str, object]) -> bytes:
    try:
        raw = json.dumps(manifest, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"the manifest is not plain JSON: {error}") from None
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ArtifactError(f"the manifest has {len(raw)} bytes, the format allows {MAX_MANIFEST_BYTES}")
    return raw


def _check_names(names: list[str]) -> None:
    if len(names) > MAX_SECTIONS:
        raise ArtifactError(f"{len(names)} sections, the format allows {MAX_SECTIONS}")
    for i, name in enumerate(names):
        if not name or "\0" in name or len(name.encode()) > NAME_BYTES:
            raise ArtifactError(f"section name {name!r} must have 1 to {NAME_BYTES} bytes and no NUL")
        if name in names[:i]:
            raise ArtifactError(f"section {name} is given twice")


def _os_error(path: Path, written: int, error: OSError) -> ArtifactError:
    if error.errno in _FULL:
        return ArtifactError(
            f"the disk is full: {os.strerror(error.errno)} after {written} bytes",
            where=str(path),
            hint="free some space or choose another folder; nothing was written",
        )
    return ArtifactError(f"cannot write the artifact: {error.strerror}", where=str(path), hint="nothing was written")


def _close_quietly(stream: BinaryIO) -> None:
    with contextlib.suppress(OSError):  # closing flushes what is left in the buffer, which may fail again
        stream.close()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
