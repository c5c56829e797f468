"""Asking the runtime, before anything is compiled, whether it will be able to read what goes into the artifact."""

from __future__ import annotations

from fretsaw.runtime.library import check, load


def check_tokenizer(tokenizer_json: bytes) -> None:
    """Raise RuntimeFailure, with the JSON path, when the runtime could not load this tokenizer.json."""
    check(load().fsw_check_tokenizer(tokenizer_json, len(tokenizer_json)))


def check_chat_template(source: str) -> None:
    """Raise RuntimeFailure, with the line, when the runtime could not parse this chat template."""
    encoded = source.encode()
    check(load().fsw_check_chat_template(encoded, len(encoded)))
