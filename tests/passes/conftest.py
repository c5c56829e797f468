"""Rules are checked wherever a test of this folder runs them: they may change nothing but what they return."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fretsaw.passes.kit.debug import debug


@pytest.fixture(autouse=True)
def check_rules() -> Iterator[None]:
    with debug():
        yield
