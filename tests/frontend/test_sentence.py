"""sentence-transformers' files: what they mean, and a refusal for everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.ir.errors import CaptureError
from tests.families import save
from tests.passes.test_pack_encoders import write_sentence_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save("bert", tmp_path)
    return tmp_path


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", ["first", "last", "mean", "max", "mean_sqrt"])
def test_read(kind: str, normalize: bool, folder: Path) -> None:
    write_sentence_files(folder, kind, normalize, length=40)
    found = load_checkpoint(folder)
    assert found.sentence is not None
    assert (found.sentence.pooling, found.sentence.normalize, found.sentence.max_tokens) == (kind, normalize, 40)
    assert found.context == 40
    assert {"modules.json", "sentence_bert_config.json"} <= {p.name for p in found.files}


def test_the_digest_sees_them(folder: Path) -> None:
    plain = load_checkpoint(folder)
    assert plain.sentence is None and plain.context == 128
    write_sentence_files(folder, "mean")
    first = load_checkpoint(folder).digest
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    changed = load_checkpoint(folder)
    assert changed.sentence is not None and changed.sentence.pooling == "first"
    assert len({plain.digest, first, changed.digest}) == 3


def test_longer_than_the_context(folder: Path) -> None:
    write_sentence_files(folder, "mean", length=4000)
    assert load_checkpoint(folder).context == 128


def test_decoders_do_not_read_them(tmp_path: Path) -> None:
    save("llama", tmp_path)
    (tmp_path / "modules.json").write_text("[{}]")
    assert load_checkpoint(tmp_path).sentence is None


MODULES = json.dumps([{"type": "st.models.Transformer", "path": ""}, {"type": "st.models.Pooling", "path": "p"}])
DENSE = MODULES[:-1] + ', {"type": "st.models.Dense"}]'


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("modules.json", "{}", "modules.json is not a list of modules"),
        ("modules.json", "[", "modules.json is not valid JSON"),
        ("modules.json", "[]", "modules none are not supported"),
        ("modules.json", DENSE, "modules Transformer, Pooling, Dense are not"),
        ("modules.json", MODULES.replace('""', '"0_T"'), "the transformer lies in the folder '0_T'"),
        ("modules.json", MODULES.replace('"p"', '"../p"'), "the pooling's path '../p' is no folder"),
        ("1_Pooling/config.json", "{}", "pooling by nothing is not supported"),
        ("1_Pooling/config.json", '{"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}',
         "pooling by pooling_mode_cls_token and pooling_mode_max_tokens is not supported"),
        ("1_Pooling/config.json", '{"pooling_mode": "weightedmean"}', "pooling by weightedmean is not supported"),
        ("sentence_bert_config.json", '{"max_seq_length": 0}', "max_seq_length must be a positive integer, is 0"),
    ],
)  # fmt: skip
def test_refused(file: str, text: str, message: str, folder: Path) -> None:
    write_sentence_files(folder, "mean")
    (folder / file).write_text(text)
    with pytest.raises(CaptureError) as error:
        load_checkpoint(folder)
    assert message in error.value.what and Path(file).name in error.value.where
