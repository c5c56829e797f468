"""Small encoders with a tokenizer, compiled, and what transformers says about the same texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedModel

from fretsaw.tools.chosen_backend import choose
from fretsaw.tools.compiler import CompileOptions, compile_checkpoint
from fretsaw.tools.reporter import Reporter
from tests.families import VOCAB, save
from tests.passes.test_pack_encoders import LONGEST, padded_reference, pooled, write_sentence_files

TEXTS = [
    "",
    "a",
    "the quick brown fox jumps over the lazy dog",
    "b " * (LONGEST - 2),  # fills the context
    "cab " * LONGEST,  # longer
    "Caf\u00e9 \u65e5\u672c\u8a9e \U0001f600 \u0645\u0631\u062d\u0628\u0627",
    "  spaces\tand tabs  ",
    "fade " * 31,
]


def tokenizer() -> Tokenizer:
    """WordPiece over letters, with [CLS] and [SEP] around a text, as BERT has it."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters), "the", "##ad", "fox"]
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.add_special_tokens(words[:4])
    assert made.get_vocab_size() <= VOCAB
    return made


@dataclass(frozen=True)
class Small:
    """A compiled encoder, its tokenizer as Hugging Face runs it, and the model it came from."""

    artifact: Path
    tokenizer: Tokenizer
    model: PreTrainedModel
    kind: str

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, cut to the context."""
        return [list(e.ids) for e in self.tokenizer.encode_batch(list(texts))]

    def want(self, texts: Sequence[str]) -> np.ndarray:
        """sentence-transformers' formula on transformers' hidden states of the padded batch, f64 [B, D]."""
        hidden = padded_reference(self.model, [np.array(i) for i in self.ids(texts)])
        return np.stack([pooled(h, self.kind) for h in hidden])


def compile_small(name: str, kind: str, folder: Path) -> Small:
    """Compile a family with random weights; without ``kind`` its folder has no sentence-transformers files."""
    source = folder / f"{name}-{kind}"
    model = save(name, source)
    model.set_attn_implementation("eager")
    if kind:
        write_sentence_files(source, kind)
    made = tokenizer()
    made.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    artifact = folder / f"{name}-{kind}.fsaw"
    compile_checkpoint(source, artifact, CompileOptions(choose("cpu:cpus=x86-64-v3")), Reporter())
    made.enable_truncation(LONGEST)
    return Small(artifact, made, model, kind)
