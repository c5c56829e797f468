"""Encoders from capture to packed against transformers: ragged batches, padding and mask on their side alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from fretsaw.frontend.capture import capture
from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.ir import Graph, run
from fretsaw.passes.pipeline import PipelineResult, run_pipeline
from tests.families import ENCODERS, VOCAB, save

LONGEST = 128  # the context of the small models
RAGGED = [(1,), (LONGEST,), (13, 1, LONGEST, 40), (2, 2, 2, 31)]
MODES = {"first": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "mean_sqrt": "mean_sqrt_len_tokens",
         "last": "lasttoken"}  # fmt: skip
Build = Callable[[str, str], tuple[PipelineResult, PreTrainedModel]]


def write_sentence_files(folder: Path, kind: str, normalize: bool = True, length: int = LONGEST) -> None:
    """The files of sentence-transformers beside a checkpoint."""
    names = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [{"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{n}"}
               for i, n in enumerate(names)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    config = {f"pooling_mode_{name}": name == MODES[kind] for name in MODES.values()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 48, **config}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """``build(family, pooling or "")`` -> (what the pipeline made, the transformers model)."""

    @cache
    def make(name: str, kind: str) -> tuple[PipelineResult, PreTrainedModel]:
        folder: Path = tmp_path_factory.mktemp(name) / name
        model = save(name, folder)
        if kind:
            write_sentence_files(folder, kind)
        inner = getattr(model, "bert", model) if name == "bert_masked_lm" else model
        inner.set_attn_implementation("eager")
        return run_pipeline(capture(load_checkpoint(folder)), check=True), inner

    return make


def ids_of(lengths: Sequence[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(len(lengths))
    return [rng.integers(3, VOCAB, n) for n in lengths]


def padded_reference(model: PreTrainedModel, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
    """transformers on the padded batch with its attention mask: hidden states [S, D] of each sequence."""
    longest = max(map(len, sequences))
    ids = torch.zeros(len(sequences), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, one in enumerate(sequences):
        ids[i, : len(one)], mask[i, : len(one)] = torch.tensor(one), 1
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask)[0].numpy()
    return [hidden[i, : len(one)] for i, one in enumerate(sequences)]


def feed(sequences: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    lengths = [len(s) for s in sequences]
    return {
        "tokens": np.concatenate(sequences).astype(np.int32),
        "positions": np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        "cu": np.cumsum([0, *lengths]).astype(np.int32),
    }


def pooled(hidden: np.ndarray, kind: str) -> np.ndarray:
    """sentence-transformers' formula on one sequence, in f64, and length one."""
    h = hidden.astype(np.float64)
    rows = {
        "first": h[0],
        "last": h[-1],
        "mean": h.sum(0) / len(h),
        "max": h.max(0),
        "mean_sqrt": h.sum(0) / len(h) ** 0.5,
    }
    return np.asarray(rows[kind] / max(float(np.linalg.norm(rows[kind])), 1e-12))


@pytest.mark.parametrize("lengths", RAGGED)
@pytest.mark.parametrize("name", ENCODERS)
def test_hidden_states(name: str, lengths: Sequence[int], build: Build) -> None:
    result, model = build(name, "")
    sequences = ids_of(lengths)
    want = np.concatenate(padded_reference(model, sequences))
    (got,) = run(result.graph, feed(sequences))
    # The bound of the frontend's own comparison, in eps of f32: two or three layers of sums over up to 128 terms.
    assert np.abs(got - want).max() <= 2000 * np.finfo(np.float32).eps * np.abs(want).max()


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_embeddings(name: str, kind: str, build: Build) -> None:
    result, model = build(name, kind)
    sequences = ids_of((13, 1, LONGEST, 40))
    want = np.stack([pooled(h, kind) for h in padded_reference(model, sequences)])
    (got,) = run(result.graph, feed(sequences))
    assert np.abs(got - want).max() <= 2000 * np.finfo(np.float32).eps
    assert result.graph.outputs[0].name == "embeddings"


@pytest.mark.parametrize("name", ENCODERS)
def test_every_check_passed_and_nothing_is_left(name: str, build: Build) -> None:
    result, _ = build(name, "")
    assert {e.check["status"] for e in result.ledger} == {"passed"}
    ops = {n.op for n in result.graph.nodes}
    assert ops <= {
        "embedding",
        "add",
        "layer_norm",
        "linear",
        "slice",
        "reshape",
        "segment_attention",
        "gelu",
        "rope",
        "mul",
    }
    assert result.graph.phase == "packed" and [str(v) for v in result.graph.inputs][-1].startswith("%cu")


def test_a_sequence_without_tokens(build: Build) -> None:
    result, _ = build("bert", "mean")
    sequences = [np.zeros(0, np.int64), *ids_of((5,)), np.zeros(0, np.int64)]
    (got,) = run(result.graph, feed(sequences))
    (alone,) = run(result.graph, feed(sequences[1:2]))
    np.testing.assert_array_equal(got, np.stack([np.zeros(48, np.float32), alone[0], np.zeros(48, np.float32)]))
    assert isinstance(result.graph, Graph)
