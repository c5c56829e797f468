"""Refuse, before anything is compiled, a tokenizer or chat template that could not be used at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fretsaw.ir.errors import CaptureError

if TYPE_CHECKING:
    from fretsaw.frontend.checkpoint import Checkpoint


def check_text_files(checkpoint: Checkpoint) -> None:
    """Check the tokenizer and the chat template of ``checkpoint``, where it has them.

    First by what their files say, which names the component; then by letting the runtime read them, which also
    finds a pattern that its regular expressions lack.

    Raises:
        CaptureError: one of them uses something that the runtime does not support.
    """
    from fretsaw.frontend.chat_template import check_chat_template
    from fretsaw.frontend.tokenizer import check_tokenizer
    from fretsaw.runtime import RuntimeFailure
    from fretsaw.runtime import check_chat_template as runtime_reads_template
    from fretsaw.runtime import check_tokenizer as runtime_reads_tokenizer

    try:
        where = "tokenizer.json"
        if checkpoint.tokenizer_json is not None:
            check_tokenizer(checkpoint.tokenizer_json)
            runtime_reads_tokenizer(checkpoint.tokenizer_json)
        where = "chat template"
        if checkpoint.chat_template is not None:
            check_chat_template(checkpoint.chat_template)
            runtime_reads_template(checkpoint.chat_template)
    except RuntimeFailure as error:
        raise CaptureError(
            f"the runtime cannot read the {where}: {error}",
            where=str(checkpoint.path),
            hint="change the file, or take it away to compile a program of token ids alone",
        ) from error
