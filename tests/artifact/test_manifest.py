"""The manifest's schema: the documented example passes, every key that is missing or wrong is named."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from fretsaw.backends.artifact.manifest import SCHEMA, tensors, validate_manifest
from fretsaw.ir.errors import ArtifactError

SECTIONS = {
    "weights": 2211840,
    "program": 100,
    "tokenizer.json": 10,
    "chat_template": 5,
    "code/llvm-x86-64-v3": 100,
    "code/llvm-x86-64-v4": 100,
}


@pytest.fixture(scope="module")
def example(root: Path) -> dict[str, object]:
    """The manifest shown in the documentation, with the objects that encoders and sparse programs have."""
    text = (root / "docs" / "artifact.md").read_text()
    block = re.search(r"```json\n(.*?)```", text, re.S)
    assert block is not None
    manifest = json.loads(block.group(1))
    assert isinstance(manifest, dict)
    dense = {"entry": "step_dense", "until": 2048, "prompts": False, "single": True}
    embedding = {"width": 384, "pooling": "mean", "normalize": True}
    return {**manifest, "program": {**manifest["program"], "dense": dense}, "embedding": embedding}


def test_the_documented_example_is_valid(example: dict[str, object]) -> None:
    validate_manifest(example, SECTIONS)
    assert tensors(example)[0].shape == (60, 576, 16)


def test_without_a_tokenizer_and_with_unknown_keys(example: dict[str, object]) -> None:
    manifest = {key: value for key, value in example.items() if key != "tokenizer"}
    validate_manifest({**manifest, "from_the_future": [1]}, SECTIONS)


def test_what_a_decoder_and_an_encoder_must_have(example: dict[str, object]) -> None:
    without = {key: value for key, value in example.items() if key not in ("kv", "embedding")}
    model = {**example["model"], "kind": "encoder"}  # type: ignore[dict-item]
    validate_manifest({**without, "model": model, "embedding": example["embedding"]}, SECTIONS)
    with pytest.raises(ArtifactError, match="embedding is missing, which a model of kind encoder has"):
        validate_manifest({**without, "model": model}, SECTIONS)
    with pytest.raises(ArtifactError, match="kv is missing, which a model of kind decoder has"):
        validate_manifest(without, SECTIONS)


def edited(manifest: dict[str, object], path: str, value: object, delete: bool) -> dict[str, object]:
    changed = copy.deepcopy(manifest)
    at: object = changed
    steps = re.findall(r"[^.\[\]?]+|\[\]", path)
    for step in steps[:-1]:
        assert isinstance(at, dict | list)
        at = at[0] if isinstance(at, list) else at[step]
    last: object = 0 if isinstance(at, list) else steps[-1]
    if delete:
        del at[last]  # type: ignore[attr-defined]
    else:
        at[last] = value  # type: ignore[index]
    return changed


@pytest.mark.parametrize("path", [p for p in SCHEMA if not p.endswith(("[]", "?")) and p != "tokenizer?.chat_template"])
def test_a_missing_key_is_named(example: dict[str, object], path: str) -> None:
    name = re.sub(r"\?", "", path).replace("[]", "[0]")
    with pytest.raises(ArtifactError, match=re.escape(f"{name} is missing")):
        validate_manifest(edited(example, path, None, delete=True), SECTIONS)


@pytest.mark.parametrize("path", list(SCHEMA))
def test_a_wrong_type_is_named(example: dict[str, object], path: str) -> None:
    name = re.sub(r"\?", "", path).replace("[]", "[0]")
    with pytest.raises(ArtifactError, match=re.escape(f"{name} must be")):
        validate_manifest(edited(example, path, 1.5, delete=False), SECTIONS)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("weights.tensors[].dtype", "f8", "unknown dtype f8"),
        ("weights.tensors[].bytes", 4, "its shape says 2211840"),
        ("weights.tensors[].offset", 64, "misplaced"),
        ("weights.tensors[].offset", 1, "misplaced"),
        ("weights.tensors[].offset", -64, "is negative"),
        ("weights.section", "other", "section other, which is not there"),
        ("variants[].section", "code/other", "section code/other, which is not there"),
        ("tokenizer?.chat_template", "nothing", "section nothing, which is not there"),
        ("kv.layers", True, "must be a whole number"),
        ("format_version", 1, "format_version is 1, this reader knows 2"),
        ("program.section", "steps", "section steps, which is not there"),
    ],
)
def test_contradictions(example: dict[str, object], path: str, value: object, words: str) -> None:
    with pytest.raises(ArtifactError, match=re.escape(words)):
        validate_manifest(edited(example, path, value, delete=False), SECTIONS)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"chunk_align": 32}, "chunk_align is 32, not 1 or a page of 64 tokens"),
        ({"chunk_align": 0}, "chunk_align is 0, not 1 or a page of 64 tokens"),
        ({"chunk_align": 64, "chunk_tokens": 127}, "chunk_tokens is 127, less than two times chunk_align"),
        ({"chunk_align": True}, "chunk_align must be a whole number"),
        ({"whole_prompts": 1}, "whole_prompts must be true or false"),
    ],
)
def test_how_prompts_may_be_cut(example: dict[str, object], rule: dict[str, object], words: str) -> None:
    program = example["program"]
    assert isinstance(program, dict)
    fits = {"chunk_align": 64, "chunk_tokens": 128, "whole_prompts": True}
    validate_manifest({**example, "program": {**program, **fits}}, SECTIONS)
    with pytest.raises(ArtifactError, match=re.escape(words)):
        validate_manifest({**example, "program": {**program, **rule}}, SECTIONS)


def test_a_tensor_listed_twice(example: dict[str, object]) -> None:
    manifest = copy.deepcopy(example)
    listed = manifest["weights"]["tensors"]  # type: ignore[index]
    listed.append({**listed[0], "offset": 2211840})
    with pytest.raises(ArtifactError, match="listed twice"):
        validate_manifest(manifest, {**SECTIONS, "weights": 2 * 2211840})
