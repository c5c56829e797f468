"""Fixtures of the tokenizer tests: the built tool, and the tokenizers to compare with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tokenizer.driver import Tool, tool_path


@pytest.fixture(scope="module")
def tool() -> Iterator[Tool]:
    path = tool_path()
    if path is None:
        pytest.skip("fretsaw-tokenizer-tool is not built (FRETSAW_BUILD, build/cmake)")
    with Tool(path) as running:
        yield running
