"""The container: round trip, same bytes twice, and any damage is an ArtifactError."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fretsaw.backends.artifact.container import Container, write_container
from fretsaw.backends.artifact.layout import ENTRY_BYTES, HEADER_BYTES
from fretsaw.ir.errors import ArtifactError

MANIFEST: dict[str, object] = {"format_version": 2, "name": "kleines Modell é", "list": [1, 2.5, None, True]}
SECTIONS: list[tuple[str, list[bytes]]] = [
    ("ir/packed", [b"graph @x() -> () {\n}"]),
    ("empty", []),
    ("weights", [bytes(range(256)), b"", b"tail"]),
    ("code/llvm-x86-64-v3", [b"\x7fELF" + bytes(64)]),
]

quick = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("container") / "model.fsaw"
    write_container(path, MANIFEST, SECTIONS)
    return path.read_bytes()


def check(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    Container.open(path).verify()


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "model.fsaw"
    size = write_container(path, MANIFEST, SECTIONS)
    assert size == path.stat().st_size
    container = Container.open(path)
    assert container.manifest == MANIFEST
    assert list(container.sections) == [name for name, _ in SECTIONS]
    for name, chunks in SECTIONS:
        assert bytes(container.section(name)) == b"".join(chunks)
        assert container.sections[name].offset % 64 == 0
    container.verify()


@given(
    manifest=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=40), max_size=5),
    sections=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=16),
        st.lists(st.binary(max_size=300), max_size=3),
        max_size=5,
    ),
)
@quick
def test_any_content_round_trips(tmp_path: Path, manifest: dict[str, object], sections: dict[str, list[bytes]]) -> None:
    path = tmp_path / "model.fsaw"
    write_container(path, manifest, list(sections.items()))
    container = Container.open(path)
    container.verify()
    assert container.manifest == manifest
    assert {n: bytes(container.section(n)) for n in container.sections} == {n: b"".join(c) for n, c in sections.items()}


def test_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_container(tmp_path / name, MANIFEST, SECTIONS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_header_is_the_documented_one(whole: bytes) -> None:
    magic, version, oldest, size, manifest_at, manifest_bytes, table_at, count, zero = struct.unpack_from(
        "<8sIIQQQQII", whole
    )
    assert (magic, version, oldest, size, manifest_at) == (b"FRETSAW\0", 2, 2, len(whole), 128)
    assert (table_at % 64, count, zero) == (0, len(SECTIONS), 0)
    manifest = whole[manifest_at : manifest_at + manifest_bytes]
    table = whole[table_at : table_at + 128 * count]
    assert whole[56:88] == hashlib.sha256(manifest + table).digest()
    assert whole[96:128] == hashlib.sha256(whole[:96]).digest()


def test_every_cut_is_refused(tmp_path: Path, whole: bytes) -> None:
    for length in range(len(whole)):
        with pytest.raises(ArtifactError):
            check(tmp_path / "cut", whole[:length])


def test_every_changed_byte_is_refused(tmp_path: Path, whole: bytes) -> None:
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(ArtifactError):
            check(tmp_path / "changed", bytes(changed))


@given(at=st.integers(0, 1 << 16), value=st.integers(1, 255), tail=st.binary(max_size=3))
@quick
def test_changed_or_longer_is_refused(tmp_path: Path, whole: bytes, at: int, value: int, tail: bytes) -> None:
    changed = bytearray(whole)
    changed[at % len(whole)] ^= value
    with pytest.raises(ArtifactError):
        check(tmp_path / "changed", bytes(changed) + tail)


def resealed(raw: bytearray) -> bytes:
    """``raw`` with both of its header digests made right again, as an attacker would."""
    manifest_bytes, table_at, count = struct.unpack_from("<QQI", raw, 32)
    if table_at + ENTRY_BYTES * count <= len(raw):
        covered = raw[HEADER_BYTES : HEADER_BYTES + manifest_bytes] + raw[table_at : table_at + ENTRY_BYTES * count]
        raw[56:88] = hashlib.sha256(covered).digest()
    raw[96:128] = hashlib.sha256(raw[:96]).digest()
    return bytes(raw)


def attacks(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Files with right digests and wrong contents, each with the words its error must hold."""
    table_at, count = struct.unpack_from("<QI", whole, 40)

    def edit(fmt: str, at: int, value: object) -> bytes:
        raw = bytearray(whole)
        struct.pack_into(fmt, raw, at, *(value if isinstance(value, tuple) else (value,)))
        return resealed(raw)

    yield "needs a reader of version 3", edit("<I", 12, 3)
    yield "format version 1 was written by an older Fretsaw", edit("<II", 8, (1, 1))
    yield "versions 0", edit("<I", 8, 0)
    yield "its header says", edit("<Q", 16, len(whole) - 1)
    yield "cut short", edit("<Q", 16, 2**63)
    yield "manifest of", edit("<Q", 24, 129)
    yield "manifest of", edit("<Q", 32, 2**64 - 1)
    yield "section table at", edit("<Q", 40, table_at + 64)
    yield "sections, the format allows", edit("<I", 48, 5000)
    yield "the section table ends at", edit("<I", 48, 4096)
    yield "reserved", edit("<I", 52, 1)
    yield "reserved bytes", edit("<Q", 88, 1)
    yield "starts at", edit("<Q", table_at + 64, 2**64 - 64)
    yield (
        "starts at",
        edit("<Q", table_at + ENTRY_BYTES + 64, struct.unpack_from("<Q", whole, table_at + 64)[0]),
    )
    yield "ends at", edit("<Q", table_at + ENTRY_BYTES * (count - 1) + 72, 2**64 - 1)
    yield "malformed", edit("<Q", table_at + 112, 1)
    yield "listed twice", edit("64s", table_at + ENTRY_BYTES, b"ir/packed")
    yield "not UTF-8", edit("64s", table_at, b"\xff\xfe")
    yield "malformed", edit("64s", table_at, b"")
    yield "not JSON", edit("1s", HEADER_BYTES, b"[")


def test_attacks_with_right_digests(tmp_path: Path, whole: bytes) -> None:
    for words, raw in attacks(whole):
        with pytest.raises(ArtifactError, match=words):
            check(tmp_path / "attack", raw)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"3", b'{"a":NaN}', b'{"a":1,"a":2}', b"\xff", b"", b'{"a":' * 50_000]
)
def test_hostile_manifests(tmp_path: Path, text: bytes) -> None:
    header = bytearray(HEADER_BYTES)
    table_at = -(-(HEADER_BYTES + len(text)) // 64) * 64
    struct.pack_into("<8sIIQQQQII", header, 0, b"FRETSAW\0", 2, 2, table_at, 128, len(text), table_at, 0, 0)
    raw = header + text + bytes(table_at - HEADER_BYTES - len(text))
    with pytest.raises(ArtifactError, match="the manifest is"):
        check(tmp_path / "manifest", resealed(raw))


@pytest.mark.parametrize(
    ("raw", "words"),
    [(b"", "is empty"), (b"GGUF", "not a Fretsaw artifact"), (b"PK\3\4" * 99, "not a Fretsaw artifact")],
)
def test_other_files(tmp_path: Path, raw: bytes, words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        check(tmp_path / "other", raw)


def test_missing_file_and_section(tmp_path: Path, whole: bytes) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        Container.open(tmp_path / "missing.fsaw")
    (tmp_path / "model.fsaw").write_bytes(whole)
    with pytest.raises(ArtifactError, match=r"no section ir/fused[\s\S]*there are ir/packed"):
        Container.open(tmp_path / "model.fsaw").section("ir/fused")


@pytest.mark.parametrize("names", [["a", "a"], [""], ["a\0b"], ["x" * 65], ["s"] * 4097])
def test_bad_section_names(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ArtifactError):
        write_container(tmp_path / "model.fsaw", {}, [(name, []) for name in names])
    assert not list(tmp_path.iterdir())


@example(manifest={"a": float("nan")})
@example(manifest={"a": object()})
@given(manifest=st.just({"a": {1, 2}}))
@quick
def test_manifest_that_is_not_json(tmp_path: Path, manifest: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="not plain JSON"):
        write_container(tmp_path / "model.fsaw", manifest, [])


def test_full_disk_leaves_nothing(tmp_path: Path, full_disk: int) -> None:
    old = tmp_path / "model.fsaw"
    write_container(old, MANIFEST, SECTIONS)
    before = old.read_bytes()
    chunks = (bytes(100_000) for _ in range(2 * full_disk // 100_000))
    with pytest.raises(ArtifactError, match="the disk is full"):
        write_container(old, MANIFEST, [("weights", chunks)])
    assert [p.name for p in tmp_path.iterdir()] == ["model.fsaw"] and old.read_bytes() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a weight cannot be computed")])
def test_interrupted_write_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(1000)
        raise error

    with pytest.raises(type(error)):
        write_container(tmp_path / "model.fsaw", MANIFEST, [("weights", chunks())])
    assert not list(tmp_path.iterdir())


def test_folder_missing_or_not_writable(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file or directory"):
        write_container(tmp_path / "no" / "model.fsaw", MANIFEST, SECTIONS)
    (tmp_path / "dir.fsaw").mkdir()
    with pytest.raises(ArtifactError, match="Is a directory"):
        write_container(tmp_path / "dir.fsaw", MANIFEST, SECTIONS)
    assert [p.name for p in tmp_path.iterdir()] == ["dir.fsaw"]


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_container(tmp_path / "model.fsaw", MANIFEST, SECTIONS)
    finally:
        os.umask(old)
    assert (tmp_path / "model.fsaw").stat().st_mode & 0o777 == 0o640
