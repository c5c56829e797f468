"""Read a container. The file is hostile until shown otherwise: bounds come before slices.

``Container.open`` checks everything but the sections' own digests: header, versions, file size, manifest,
table, order, alignment and zero gaps. ``Container.verify`` reads every byte. Neither loads native code.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fretsaw.backends.artifact.layout import (
    ENTRY_BYTES,
    FORMAT_VERSION,
    HEADER_BYTES,
    MAGIC,
    MAX_MANIFEST_BYTES,
    MAX_SECTIONS,
    Header,
    SectionEntry,
    align,
    unpack_entry,
)
from fretsaw.backends.artifact.writer import write_container
from fretsaw.ir.errors import ArtifactError

__all__ = ["Container", "write_container"]

Json = Mapping[str, object]
Progress = Callable[[int], None]  # bytes done since the last call
_STEP = 8 << 20  # bytes hashed between two reports of progress


@dataclass(frozen=True)
class Container:
    """An open artifact whose structure has been checked."""

    path: Path
    header: Header
    manifest: Json
    sections: Mapping[str, SectionEntry]
    _data: memoryview

    @staticmethod
    def open(path: Path | str) -> Container:
        """Map ``path`` and check its structure.

        Raises:
            ArtifactError: no such file, not an artifact, a newer version, cut short, or damaged; says where.
        """
        path = Path(path)
        data = _map(path)
        header = _read_header(path, data)
        raw_manifest = data[HEADER_BYTES : HEADER_BYTES + header.manifest_bytes]
        raw_table = data[header.table_offset : header.table_offset + ENTRY_BYTES * header.section_count]
        digest = hashlib.sha256(raw_manifest)
        digest.update(raw_table)
        if digest.digest() != header.digest:
            raise _damaged(path, "the digest of manifest and table does not match")
        manifest = _parse_manifest(path, bytes(raw_manifest))
        sections = _read_table(path, data, header, bytes(raw_table))
        return Container(path, header, manifest, sections, data)

    def section(self, name: str) -> memoryview:
        """The bytes of a section, mapped, not copied.

        Raises:
            ArtifactError: there is no such section; the ones that are there are named.
        """
        if name not in self.sections:
            raise ArtifactError(
                f"there is no section {name}",
                where=str(self.path),
                hint=f"there are {', '.join(self.sections)}",
            )
        entry = self.sections[name]
        return self._data[entry.offset : entry.end]

    def text(self, name: str) -> str:
        """A section as UTF-8 text."""
        try:
            return str(self.section(name), "utf-8")
        except UnicodeDecodeError as error:
            raise _damaged(self.path, f"section {name} is not UTF-8: {error}") from None

    def verify(self, progress: Progress | None = None) -> None:
        """Compare the digest of every section with the table's.

        Raises:
            ArtifactError: a section was changed; the section is named.
        """
        for entry in self.sections.values():
            digest = hashlib.sha256()
            for start in range(entry.offset, entry.end, _STEP):
                part = self._data[start : min(start + _STEP, entry.end)]
                digest.update(part)
                if progress is not None:
                    progress(part.nbytes)
            if digest.digest() != entry.digest:
                raise _damaged(self.path, f"the digest of section {entry.name} does not match")


def _map(path: Path) -> memoryview:
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            if size == 0:
                raise ArtifactError("the file is empty", where=str(path), hint="copy or compile it again")
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ArtifactError(f"cannot read the artifact: {error.strerror}", where=str(path)) from None


def _read_header(path: Path, data: memoryview) -> Header:
    if bytes(data[: len(MAGIC)]) != MAGIC[: data.nbytes]:
        raise ArtifactError(
            f"not a Fretsaw artifact: it starts with {bytes(data[:8])!r}, not {MAGIC!r}",
            where=str(path),
            hint="give a file that `fretsaw compile` wrote",
        )
    if data.nbytes < HEADER_BYTES:
        raise _cut(path, data.nbytes, HEADER_BYTES)
    header = Header.unpack(bytes(data[:HEADER_BYTES]))
    if header.oldest_reader > FORMAT_VERSION:  # before the digest: a newer header may be laid out differently
        raise ArtifactError(
            f"format version {header.version} needs a reader of version {header.oldest_reader}, "
            f"this one is version {FORMAT_VERSION}",
            where=str(path),
            hint="update Fretsaw",
        )
    if hashlib.sha256(data[: HEADER_BYTES - 32]).digest() != bytes(data[HEADER_BYTES - 32 : HEADER_BYTES]):
        raise _damaged(path, "the header's digest does not match")
    if header.pack() != bytes(data[:HEADER_BYTES]):
        raise _damaged(path, "reserved bytes of the header are not zero")
    if header.version < 1 or header.oldest_reader < 1 or header.reserved != 0:
        raise _damaged(path, f"versions {header.version}, {header.oldest_reader} or reserved field {header.reserved}")
    if header.version < FORMAT_VERSION:
        raise ArtifactError(
            f"format version {header.version} was written by an older Fretsaw, this one reads version {FORMAT_VERSION}",
            where=str(path),
            hint="compile the checkpoint again",
        )
    if header.file_bytes != data.nbytes:
        if data.nbytes < header.file_bytes:
            raise _cut(path, data.nbytes, header.file_bytes)
        raise _damaged(path, f"the file has {data.nbytes} bytes, its header says {header.file_bytes}")
    _check_header_bounds(path, header)
    return header


def _check_header_bounds(path: Path, header: Header) -> None:
    if header.manifest_offset != HEADER_BYTES or header.manifest_bytes > MAX_MANIFEST_BYTES:
        raise _damaged(path, f"manifest of {header.manifest_bytes} bytes at {header.manifest_offset}")
    if header.section_count > MAX_SECTIONS:
        raise _damaged(path, f"{header.section_count} sections, the format allows {MAX_SECTIONS}")
    expected = align(HEADER_BYTES + header.manifest_bytes)
    if header.table_offset != expected:
        raise _damaged(path, f"section table at {header.table_offset}, expected at {expected}")
    end = header.table_offset + ENTRY_BYTES * header.section_count
    if end > header.file_bytes:
        raise _damaged(path, f"the section table ends at {end}, the file at {header.file_bytes}")


def _read_table(path: Path, data: memoryview, header: Header, raw: bytes) -> dict[str, SectionEntry]:
    sections: dict[str, SectionEntry] = {}
    gap_start = HEADER_BYTES + header.manifest_bytes
    _check_zero(path, data[gap_start : header.table_offset], gap_start)
    end = header.table_offset + len(raw)
    for i in range(header.section_count):
        packed = raw[i * ENTRY_BYTES : (i + 1) * ENTRY_BYTES]
        padded, offset, nbytes, digest = unpack_entry(packed)
        try:
            entry = SectionEntry(padded.rstrip(b"\0").decode(), offset, nbytes, digest)
        except UnicodeDecodeError:
            raise _damaged(path, f"the name of section {i} is not UTF-8") from None
        if not entry.name or "\0" in entry.name or entry.pack() != packed:
            raise _damaged(path, f"the table entry of section {i} ({entry.name!r}) is malformed")
        if entry.name in sections:
            raise _damaged(path, f"section {entry.name} is listed twice")
        if offset != align(end):
            raise _damaged(path, f"section {entry.name} starts at {offset}, expected at {align(end)}")
        if offset > header.file_bytes or nbytes > header.file_bytes - offset:
            raise _damaged(path, f"section {entry.name} ends at {offset + nbytes}, the file at {header.file_bytes}")
        _check_zero(path, data[end:offset], end)
        sections[entry.name] = entry
        end = entry.end
    if end != header.file_bytes:
        raise _damaged(path, f"the last section ends at {end}, the file at {header.file_bytes}")
    return sections


def _check_zero(path: Path, gap: memoryview, offset: int) -> None:
    if any(gap):
        raise _damaged(path, f"the gap of {gap.nbytes} bytes at {offset} is not zero")


def _parse_manifest(path: Path, raw: bytes) -> Json:
    try:
        manifest = json.loads(raw.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise _damaged(path, f"the manifest is not JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise _damaged(path, f"the manifest is a JSON {type(manifest).__name__}, not an object")
    return manifest


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _cut(path: Path, got: int, want: int) -> ArtifactError:
    return ArtifactError(
        f"the file is cut short: it has {got} of {want} bytes",
        where=str(path),
        hint="copy or compile it again",
    )


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"the artifact is damaged: {what}", where=str(path), hint="copy or compile it again")
