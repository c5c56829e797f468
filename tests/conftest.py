"""Fixtures and options every test folder shares."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.captured import CapturedFamily

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    # One CPU thread pool per process: tests run beside each other on two cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared models and texts; tests that need it are skipped where it is missing."""
    path = Path(os.environ.get("FRETSAW_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip("shared models and texts not found: set FRETSAW_SHARED")
    return path


@pytest.fixture(scope="session")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], CapturedFamily]:
    """``captured(family)`` -> its checkpoint, model and captured graph; made once."""
    from tests.captured import CapturedFamily

    return cache(lambda name: CapturedFamily.make(name, tmp_path_factory.mktemp(name) / name))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[int]:
    """Limit the size of any file this process writes to 1 MiB: the write past it fails as on a full disk."""
    import resource
    import signal

    limit = 1 << 20
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the default action ends the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield limit
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
