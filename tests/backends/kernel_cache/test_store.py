"""The kernel cache's entries: whole or not there, checked when read, oldest out, safe with many writers."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from fretsaw.backends.kernel_cache import KernelCache, Place

KEY, OTHER = "ab" + "0" * 62, "cd" + "1" * 62
CODE = bytes(range(256)) * 40


def cache_in(folder: Path, limit: int = 1 << 20) -> KernelCache:
    return KernelCache(Place(folder), limit)


def entry(folder: Path, key: str = KEY) -> Path:
    return folder / key[:2] / f"{key}.kernel"


def test_what_was_put_is_got_by_another_process_too(tmp_path: Path) -> None:
    assert cache_in(tmp_path).get(KEY) is None
    cache_in(tmp_path).put(KEY, CODE)
    again = cache_in(tmp_path)
    assert again.get(KEY) == CODE and again.get(OTHER) is None and again.troubles == ()
    assert (again.usage().entries, again.usage().nbytes) == (1, entry(tmp_path).stat().st_size)


@pytest.mark.parametrize("at", [0, 20, 60, -1], ids=["magic", "digest", "first byte", "last byte"])
def test_a_damaged_entry_is_compiled_again_and_said(at: int, tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    cache.put(KEY, CODE)
    data = bytearray(entry(tmp_path).read_bytes())
    data[at] ^= 1
    entry(tmp_path).write_bytes(data)
    assert cache.get(KEY) is None
    assert "is damaged; compiled again" in cache.troubles[0] and not entry(tmp_path).exists()
    cache.put(KEY, CODE)
    assert cache.get(KEY) == CODE


@pytest.mark.parametrize("size", [0, 10, 40, 49, 5000])
def test_a_part_of_an_entry_is_never_read(size: int, tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    cache.put(KEY, CODE)
    entry(tmp_path).write_bytes(entry(tmp_path).read_bytes()[:size])
    assert cache.get(KEY) is None


def test_an_entry_under_another_key_is_not_taken(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    cache.put(KEY, CODE)
    entry(tmp_path, OTHER).parent.mkdir()
    entry(tmp_path).rename(entry(tmp_path, OTHER))
    assert cache.get(OTHER) is None and "damaged" in cache.troubles[0]


def test_an_entry_that_others_may_write_or_that_is_a_link_is_not_taken(tmp_path: Path) -> None:
    cache = cache_in(tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    cache.put(KEY, CODE)
    entry(tmp_path / "cache").chmod(0o666)
    assert cache.get(KEY) is None and "only this user may write" in cache.troubles[0]
    entry(tmp_path / "cache").chmod(0o600)
    assert cache.get(KEY) == CODE
    entry(tmp_path / "cache").rename(tmp_path / "elsewhere")
    entry(tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    assert cache.get(KEY) is None


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    keys = [f"{i:02x}" + "0" * 62 for i in range(10)]
    cache = cache_in(tmp_path, limit=8 * (len(CODE) + 49))
    for age, key in enumerate(keys[:8]):
        cache.put(key, CODE)
        old = time.time() - 10_000 * (8 - age)
        os.utime(entry(tmp_path, key), (old, old))
    assert cache.get(keys[0]) == CODE  # used now: no longer the oldest
    cache.put(keys[8], CODE)
    # Nine are too many; six are 80 % of the limit.
    assert [i for i, key in enumerate(keys) if entry(tmp_path, key).exists()] == [0, 4, 5, 6, 7, 8]


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path: Path, full_disk: int) -> None:
    cache = cache_in(tmp_path)
    cache.put(KEY, bytes(2 * full_disk))
    cache.put(OTHER, bytes(2 * full_disk))
    (line,) = cache.troubles
    assert "cannot write to" in line and os.strerror(errno.EFBIG) in line
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    cache.put(KEY, CODE)
    assert cache.get(KEY) == CODE


def test_parts_of_killed_writers_go_when_room_is_made(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, limit=10)
    cache.put(KEY, CODE)
    part = entry(tmp_path).parent / ".killed.part"
    for age, stays in ((10, True), (5000, False)):
        part.write_bytes(b"half")
        os.utime(part, (time.time() - age,) * 2)
        cache.put(KEY, CODE)
        assert part.exists() == stays


def test_clear_leaves_nothing(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    cache.put(KEY, CODE)
    cache.put(OTHER, CODE)
    assert cache.clear().entries == 2
    assert list(tmp_path.iterdir()) == [] and cache.get(KEY) is None


def _write_and_read(folder: str, seed: int) -> None:
    cache = KernelCache(Place(Path(folder)), limit=40 * len(CODE))
    for i in range(200):
        key = f"{(i * 7 + seed) % 16:02x}" + "0" * 62
        found = cache.get(key)
        assert found in (None, CODE)
        if found is None:
            cache.put(key, CODE)
    assert cache.troubles == ()


def test_many_processes_and_threads_share_a_folder(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_write_and_read, args=(str(tmp_path), seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    cache = cache_in(tmp_path)

    def put_often() -> None:
        for _ in range(50):
            cache.put(KEY, CODE)

    threads = [threading.Thread(target=put_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0] * 4
    assert not list(tmp_path.rglob("*.part"))
