"""A tokenizer that only the runtime's own reader can refuse is refused before anything is compiled."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fretsaw.ir.errors import CaptureError
from fretsaw.tools.text_checks import check_text_files

pytestmark = pytest.mark.native


def checkpoint(pattern: str | None = None, template: str | None = None) -> Any:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    tokenizer: dict[str, object] = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
        "pre_tokenizer": split if pattern else None,
    }
    return SimpleNamespace(
        tokenizer_json=json.dumps(tokenizer).encode(), chat_template=template, path=Path("checkpoint")
    )


def test_what_the_runtime_reads_is_accepted() -> None:
    check_text_files(checkpoint(r"\p{L}+|\s+", "{{ messages[0].content }}"))


def test_a_pattern_that_the_runtime_cannot_compile_is_refused() -> None:
    # The original library takes this pattern; the runtime bounds how deep one may nest.
    with pytest.raises(CaptureError) as caught:
        check_text_files(checkpoint("(?:" * 400 + "a" + ")" * 400))
    assert "the runtime cannot read the tokenizer.json" in str(caught.value)
    assert "pre_tokenizer" in str(caught.value)


def test_a_template_is_checked_too() -> None:
    with pytest.raises(CaptureError, match="chat template"):
        check_text_files(checkpoint(None, "{% macro f() %}{% endmacro %}{{ f() }}{% include 'x' %}"))
