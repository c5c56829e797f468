"""Thin binding of the C++ runtime: NumPy and text in and out, no model code of its own."""

from fretsaw.runtime.batch import Batch, BatchOptions, Completed, Request
from fretsaw.runtime.checks import check_chat_template, check_tokenizer
from fretsaw.runtime.errors import RuntimeFailure
from fretsaw.runtime.library import library_path
from fretsaw.runtime.model import Generation, Model, Session, Token
from fretsaw.runtime.sampling import Sampling

__all__ = [
    "Batch",
    "BatchOptions",
    "Completed",
    "Generation",
    "Model",
    "Request",
    "RuntimeFailure",
    "Sampling",
    "Session",
    "Token",
    "check_chat_template",
    "check_tokenizer",
    "library_path",
]
