"""Entries of a cache: one file each, written whole or not at all, checked whenever it is read.

Any number of processes and machines may share a folder: an entry appears by a rename, two writers of one entry write
the same bytes, and whoever reads checks owner, key and SHA-256 before the bytes are used. What does not hold is
made again. No error of the file system reaches the caller; the first of each kind is kept in `troubles`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fretsaw.backends.kernel_cache.place import Place, find_place

PART = ".part"
LIMIT = 512 << 20  # bytes; a kernel has 15 to 60 kB, a model 10 to 30 kernels in each instruction set; a graph 250 kB
ENTRY_LIMIT = 64 << 20  # bytes
TRIM_TO = 0.8  # of the limit: trimming reads the whole folder, so it makes room for many entries at once
STALE = 3600.0  # seconds after which a part that was never renamed belongs to a process that was killed
USED_EVERY = 3600.0  # seconds: an entry's time of use is not written more often


@dataclass(frozen=True)
class Kind:
    """What a cache keeps.

    Args:
        name: One of them, and the ending of its file.
        things: Several of them, for people.
        again: What is done where one cannot be used.
    """

    name: str
    things: str
    again: str

    @property
    def magic(self) -> bytes:
        return f"fretsaw {self.name} 1\n".encode()

    @property
    def suffix(self) -> str:
        return f".{self.name}"


KERNELS = Kind("kernel", "compiled kernels", "compiled again")
GRAPHS = Kind("graph", "captured graphs", "captured again")


@dataclass(frozen=True)
class Usage:
    """What a cache holds.

    Args:
        entries: How many.
        nbytes: Bytes of all of them.
        oldest: When the one that goes first was used last, in seconds since 1970; None where there is none.
    """

    entries: int
    nbytes: int
    oldest: float | None


@dataclass
class KernelCache:
    """Bytes by the digest of what they were made from, in one folder. Every method may be called from several threads.

    Args:
        place: The folder, or none.
        limit: Bytes; what was not used for longest goes first.
        kind: What is kept.
    """

    place: Place = field(default_factory=find_place)
    limit: int = LIMIT
    kind: Kind = KERNELS
    _troubles: dict[str, str] = field(default_factory=dict)
    _size: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def troubles(self) -> tuple[str, ...]:
        """One line for each thing that kept an entry from being kept or used; for the user to read."""
        why = (self.place.why,) if self.place.why else ()
        return (*why, *self._troubles.values())

    def get(self, key: str) -> bytes | None:
        """The bytes kept under ``key`` (a hexadecimal digest), or None."""
        if self.place.folder is None:
            return None
        path = self._path(self.place.folder, key)
        try:
            data, used = _read_own_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note("read", f"cannot read {path}: {error.strerror}; {self.kind.again}")
            return None
        payload = _checked(self.kind.magic, key, data)
        if payload is None:
            self._note("damaged", f"{path} is damaged; {self.kind.again}")
            with suppress(OSError):
                path.unlink()
        elif time.time() - used > USED_EVERY:
            with suppress(OSError):  # a cache that may only be read is a cache all the same
                os.utime(path)
        return payload

    def put(self, key: str, payload: bytes) -> None:
        """Keep ``payload`` under ``key``, if the file system lets us."""
        folder = self.place.folder
        if folder is None or len(payload) > ENTRY_LIMIT:
            return
        path = self._path(folder, key)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _write_whole(path, self.kind.magic + _digest(key, payload) + payload)
        except OSError as error:
            self._note("write", f"{self.kind.things} are not kept: cannot write to {folder}: {error.strerror}")
            return
        with self._lock:
            # Counted once; others that write to the folder meanwhile are seen at the next count.
            self._size = self.usage().nbytes if self._size is None else self._size + len(payload)
            if self._size > self.limit:
                self._size = self._trim()

    def usage(self) -> Usage:
        """Count what is there."""
        files = list(self._files())
        return Usage(len(files), sum(f.nbytes for f in files), min((f.used for f in files), default=None))

    def clear(self) -> Usage:
        """Delete every entry, and return what there was.

        Raises:
            OSError: an entry cannot be deleted.
        """
        before = self.usage()
        for file in self._files():
            file.path.unlink(missing_ok=True)
        self._drop_parts(older_than=0)
        for folder in self._folders():
            with suppress(OSError):  # somebody else may have put an entry there meanwhile
                folder.rmdir()
        self._size = None
        return before

    def _path(self, folder: Path, key: str) -> Path:
        return folder / key[:2] / (key + self.kind.suffix)

    def _folders(self) -> Iterator[Path]:
        if self.place.folder is not None:
            with suppress(OSError):
                yield from sorted(f for f in self.place.folder.iterdir() if len(f.name) == 2 and f.is_dir())

    def _files(self) -> Iterator[_File]:
        for folder in self._folders():
            with suppress(OSError), os.scandir(folder) as found:
                for entry in found:
                    if entry.name.endswith(self.kind.suffix):
                        with suppress(OSError):  # it may go while we look
                            status = entry.stat(follow_symlinks=False)
                            yield _File(Path(entry.path), status.st_size, status.st_mtime)

    def _trim(self) -> int:
        """Delete what was not used for longest, until the rest is well below the limit; return its bytes."""
        self._drop_parts(older_than=STALE)
        files = sorted(self._files(), key=lambda f: f.used)
        left = sum(f.nbytes for f in files)
        for file in files:
            if left <= self.limit * TRIM_TO:
                break
            with suppress(OSError):
                file.path.unlink(missing_ok=True)
                left -= file.nbytes
        return left

    def _drop_parts(self, older_than: float) -> None:
        now = time.time()
        for folder in self._folders():
            for part in folder.glob(f"*{PART}"):
                with suppress(OSError):
                    if now - part.stat(follow_symlinks=False).st_mtime >= older_than:
                        part.unlink()

    def _note(self, kind: str, text: str) -> None:
        with self._lock:
            self._troubles.setdefault(kind, text)


@dataclass(frozen=True)
class _File:
    path: Path
    nbytes: int
    used: float  # seconds since 1970


def _digest(key: str, payload: bytes) -> bytes:
    """Covers the key too: an entry that was renamed to another key is damaged."""
    return hashlib.sha256(key.encode() + b"\n" + payload).digest()


def _checked(magic: bytes, key: str, data: bytes) -> bytes | None:
    head = len(magic) + 32
    payload = data[head:]
    whole = data[: len(magic)] == magic and data[len(magic) : head] == _digest(key, payload)
    return payload if whole else None


def _read_own_file(path: Path) -> tuple[bytes, float]:
    """Bytes of a regular file of this user that nobody else may write to, and when it was used last.

    Raises:
        OSError: there is none, or it is not such a file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        own = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISREG(status.st_mode) or not own:
            raise PermissionError(0, "it is not a file that only this user may write to")
        if status.st_size > ENTRY_LIMIT + 4096:
            raise OSError(0, "it is larger than any entry")
        return file.read(), status.st_mtime


def _write_whole(path: Path, data: bytes) -> None:
    handle, part = tempfile.mkstemp(prefix=".", suffix=PART, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.rename(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
