"""Which folder holds compiled kernels, and which are not trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fretsaw.backends.kernel_cache import KernelCache, find_place


def test_the_folder_is_where_the_environment_says(tmp_path: Path) -> None:
    home = str(tmp_path)
    assert find_place({"HOME": home}).folder == tmp_path / ".cache/fretsaw/kernels"
    assert find_place({"HOME": home, "XDG_CACHE_HOME": f"{home}/x"}).folder == tmp_path / "x/fretsaw/kernels"
    assert find_place({"HOME": home, "XDG_CACHE_HOME": "relative"}).folder == tmp_path / ".cache/fretsaw/kernels"
    assert find_place({"HOME": home, "FRETSAW_CACHE": f"{home}/own"}).folder == tmp_path / "own"
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
    off = find_place({"HOME": home, "FRETSAW_CACHE": "off"})
    assert off.folder is None and off.why == ""  # asked for, so nothing to say


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({}, "HOME is not set"),
        ({"HOME": "/proc/nowhere"}, "cannot make /proc/nowhere/.cache"),
        ({"FRETSAW_CACHE": "/dev/null"}, "cannot make /dev/null: File exists"),
    ],
)
def test_without_a_folder_there_is_one_line_and_no_error(environment: dict[str, str], why: str) -> None:
    place = find_place(environment)
    cache = KernelCache(place)
    cache.put("ab" * 32, b"code")
    assert cache.get("ab" * 32) is None and cache.usage().entries == 0
    (line,) = cache.troubles
    assert why in line and "set FRETSAW_CACHE" in line and "\n" not in line


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    place = find_place({"FRETSAW_CACHE": str(tmp_path)})
    assert place.folder is None and "others may write" in place.why and "chmod go-w" in place.why


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    place = find_place({"FRETSAW_CACHE": str(tmp_path)})
    assert place.folder is None and "belongs to another user" in place.why


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_only_be_read_is_said_when_it_is_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    cache = KernelCache(find_place({"FRETSAW_CACHE": str(tmp_path)}))
    cache.put("ab" * 32, b"code")
    assert "cannot write to" in cache.troubles[0]
