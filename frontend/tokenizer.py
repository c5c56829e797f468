"""Refuse, at compile time and by name, a tokenizer.json that the runtime could not load.

The table below is the compiler's copy of `runtime/src/tokenizer/features.h`; a test compares the two.
"""

from __future__ import annotations

import json
from typing import NoReturn

from fretsaw.ir.errors import CaptureError

SUPPORTED: dict[str, tuple[str, ...]] = {
    "model": ("BPE", "WordPiece", "WordLevel"),
    "normalizer": (
        "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Replace", "Prepend", "Strip",
        "ByteLevel", "Sequence",
    ),
    "pre_tokenizer": (
        "ByteLevel", "Split", "Digits", "Metaspace", "Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Punctuation",
        "CharDelimiterSplit", "Sequence",
    ),
    "post_processor": ("TemplateProcessing", "ByteLevel", "BertProcessing", "RobertaProcessing", "Sequence"),
    "decoder": (
        "ByteLevel", "Metaspace", "ByteFallback", "Fuse", "Strip", "Replace", "WordPiece", "BPEDecoder", "Sequence",
    ),
}  # fmt: skip
CHILDREN = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}
ADDS_TOKENS = ("TemplateProcessing", "BertProcessing", "RobertaProcessing")


def check_tokenizer(tokenizer_json: bytes) -> None:
    """Raise unless the runtime implements every component of this tokenizer.

    Args:
        tokenizer_json: the file's bytes, UTF-8 JSON.

    Raises:
        CaptureError: it is not a tokenizer.json, or a component or option is not supported; names the JSON path.
    """
    try:
        root = json.loads(tokenizer_json)
    except ValueError as error:
        raise CaptureError(
            f"tokenizer.json is not valid JSON: {error}", where="tokenizer.json", hint="download it again"
        ) from error
    if not isinstance(root, dict) or not isinstance(root.get("model"), dict):
        raise CaptureError(
            "tokenizer.json has no model",
            where="tokenizer.json",
            hint="save the tokenizer with tokenizers or transformers",
        )
    _check_model(root["model"])
    for kind in CHILDREN:
        if root.get(kind) is not None:
            _check_component(root[kind], kind, kind)
    _check_loads(tokenizer_json)


def _refuse(what: str, where: str, supported: tuple[str, ...] = ()) -> NoReturn:
    hint = f"supported: {', '.join(supported)}" if supported else "convert the tokenizer to one without it"
    raise CaptureError(what, where=f"tokenizer.json: {where}", hint=hint)


def _check_model(model: dict[str, object]) -> None:
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind not in SUPPORTED["model"]:
        _refuse(f"tokenizer model {kind!r} is not supported", "model.type", SUPPORTED["model"])
    if model.get("dropout"):
        _refuse("BPE dropout makes tokenization random", "model.dropout")


def _check_component(node: object, kind: str, path: str) -> None:
    name = node.get("type") if isinstance(node, dict) else None
    if not isinstance(node, dict) or name not in SUPPORTED[kind]:
        _refuse(f"{kind} {name!r} is not supported", path, SUPPORTED[kind])
    if name != "Sequence":
        return
    children = node.get(CHILDREN[kind])
    for i, child in enumerate(children if isinstance(children, list) else []):
        _check_component(child, kind, f"{path}.{CHILDREN[kind]}[{i}]")
    if kind == "post_processor" and isinstance(children, list):
        adding = [c["type"] for c in children if isinstance(c, dict) and c.get("type") in ADDS_TOKENS]
        if len(adding) > 1:
            _refuse(f"two processors that add tokens: {', '.join(adding)}", path)


def _check_loads(tokenizer_json: bytes) -> None:
    """Let the original library read it: it checks patterns, merges and templates."""
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_str(tokenizer_json.decode())
    except Exception as error:  # the library raises bare Exception
        raise CaptureError(
            f"tokenizer.json does not load: {error}", where="tokenizer.json", hint="save it again"
        ) from error
