"""Load a Hugging Face checkpoint directory: configuration, tokenizer files and where every tensor lies.

Weights stay on disk. Nothing is unpickled and no code from the directory runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fretsaw.frontend.families import Kind, find_family
from fretsaw.frontend.sentence import MODULES, Sentence, read_sentence
from fretsaw.ir import FileData
from fretsaw.ir.errors import CaptureError
from fretsaw.ir.safetensors import read_safetensors

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TEXT_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
)  # fmt: skip
Json = Mapping[str, object]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint directory, read but not loaded.

    Args:
        config: config.json.
        architecture: Class name, e.g. ``LlamaForCausalLM``.
        family: transformers' model type, e.g. ``llama``.
        tensors: Every tensor of every safetensors file by its name in the checkpoint.
        tokenizer_json: Bytes of tokenizer.json, None when there is none.
        context: Longest sequence in tokens.
        eos_token_ids: Tokens that end generation, from generation_config.json or else config.json.
        files: The files that make the checkpoint, sorted by name.
        sentence: What sentence-transformers' files say about an encoder's output, None where there are none.
    """

    path: Path
    config: Json
    architecture: str
    family: str
    kind: Kind
    tensors: Mapping[str, FileData]
    tokenizer_json: bytes | None
    tokenizer_config: Json
    generation_config: Json
    chat_template: str | None
    context: int
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    pad_token_id: int | None
    bos_token: str
    eos_token: str
    files: tuple[Path, ...]
    sentence: Sentence | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, sizes and bytes of all files; reads them once, streamed."""
        total = hashlib.sha256()
        for path in self.files:
            name = path.relative_to(self.path).as_posix()
            total.update(f"{name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    total.update(chunk)
        return total.hexdigest()


def load_checkpoint(directory: Path) -> Checkpoint:
    """Read and check a checkpoint directory.

    Raises:
        CaptureError: a file is missing, broken or unsupported; says which and what to do.
    """
    path = Path(directory)
    if not path.is_dir():
        raise CaptureError(f"{path} is not a directory", hint="give the directory that holds config.json")
    config = _read_json(path / "config.json", required=True)
    family, architecture = find_family(config, str(path / "config.json"))
    _refuse(config, path)
    tensors, weights = _read_tensors(path)
    generation = _read_json(path / "generation_config.json")
    tokenizer = _read_json(path / "tokenizer_config.json")
    tokenizer_file = path / "tokenizer.json"
    eos = generation.get("eos_token_id", config.get("eos_token_id"))
    sentence = None
    if family.kind == "encoder":
        sentence = read_sentence(path, _read_json, _read_list(path / MODULES))
    extra = () if sentence is None else sentence.files
    return Checkpoint(
        path, config, architecture, family.model_type, family.kind, tensors,
        tokenizer_file.read_bytes() if tokenizer_file.is_file() else None, tokenizer, generation,
        _chat_template(path, tokenizer), _context(config, path, sentence), _ids(eos, path),
        next(iter(_ids(generation.get("bos_token_id", config.get("bos_token_id")), path)), None),
        next(iter(_ids(generation.get("pad_token_id", config.get("pad_token_id")), path)), None),
        _token(tokenizer.get("bos_token")), _token(tokenizer.get("eos_token")),
        tuple(sorted([*weights, *extra, *(p for n in TEXT_FILES if (p := path / n).is_file())])), sentence,
    )  # fmt: skip


def _read_json(path: Path, required: bool = False) -> Json:
    """A JSON object; an empty one when the file is missing and not required."""
    if not path.is_file():
        if required:
            raise CaptureError(
                f"{path.name} is missing",
                where=str(path.parent),
                hint="this is not a Hugging Face model directory",
            )
        return {}
    value = _parse(path)
    if not isinstance(value, dict):
        raise CaptureError(f"{path.name} is not a JSON object", where=str(path))
    return value


def _read_list(path: Path) -> object:
    """Any JSON value; None when the file is missing."""
    return _parse(path) if path.is_file() else None


def _parse(path: Path) -> object:
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CaptureError(f"{path.name} is not valid JSON: {error}", where=str(path)) from None


def _refuse(config: Json, path: Path) -> None:
    """Refuse what would run foreign code or needs weights in a form that Fretsaw does not read."""
    where = str(path / "config.json")
    if "auto_map" in config:
        raise CaptureError(
            "config.json asks for Python code from the checkpoint (auto_map)", where=where,
            hint="Fretsaw never runs such code: remove auto_map if transformers knows the architecture",
        )  # fmt: skip
    quantization = config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else quantization
        raise CaptureError(
            f"the checkpoint is quantized ({method}), which is not supported", where=where,
            hint="use the f32, f16 or bf16 checkpoint; Fretsaw makes weights smaller itself (--weights)",
        )  # fmt: skip
    if config.get("is_decoder") and config.get("model_type") in ("bert", "modernbert"):
        raise CaptureError("an encoder used as decoder (is_decoder) is not supported", where=where)
    if config.get("position_embedding_type", "absolute") != "absolute":
        kind = config["position_embedding_type"]
        raise CaptureError(f"position_embedding_type {kind!r} is not supported", where=where)
    if config.get("use_bidirectional_attention"):
        raise CaptureError("a decoder with bidirectional attention is not supported", where=where)


def _read_tensors(path: Path) -> tuple[dict[str, FileData], list[Path]]:
    """All tensors and the files they come from: one safetensors file, or the shards that an index names."""
    index = path / INDEX
    if (path / SINGLE).is_file():
        return read_safetensors(path / SINGLE), [path / SINGLE]
    if not index.is_file():
        pickles = sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        if pickles:
            raise CaptureError(
                f"the weights are in a pickle ({pickles[0]}), which Fretsaw never loads", where=str(path),
                hint="save the checkpoint as safetensors",
            )  # fmt: skip
        raise CaptureError(f"there is neither {SINGLE} nor {INDEX}", where=str(path))
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise CaptureError(f"{INDEX} has no weight_map from tensor to file", where=str(index))
    tensors: dict[str, FileData] = {}
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if Path(shard).name != shard or not (path / shard).is_file():
            raise CaptureError(f"{INDEX} names {shard!r}, which is no file of the directory", where=str(index))
        for name, data in read_safetensors(path / shard).items():
            if name in tensors:
                raise CaptureError(f"tensor {name} is in {tensors[name].path.name} and in {shard}", where=str(path))
            tensors[name] = data
    for name, shard in weight_map.items():
        if name not in tensors or tensors[name].path.name != shard:
            raise CaptureError(f"tensor {name} is not in {shard}, where {INDEX} says it is", where=str(path / shard))
    return tensors, [index, *(path / s for s in shards)]


def _chat_template(path: Path, tokenizer: Json) -> str | None:
    """Jinja source: chat_template.jinja goes before the tokenizer's own; of several the default one."""
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = tokenizer.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _context(config: Json, path: Path, sentence: Sentence | None) -> int:
    context = config.get("max_position_embeddings")
    if not isinstance(context, int) or isinstance(context, bool) or not 1 <= context < 1 << 31:
        raise CaptureError(
            f"max_position_embeddings must be a positive integer, is {context!r}",
            where=str(path / "config.json"),
        )
    if sentence is not None and sentence.max_tokens is not None:
        return min(context, sentence.max_tokens)
    return context


def _ids(value: object, path: Path) -> tuple[int, ...]:
    found: list[int] = []
    for item in value if isinstance(value, list) else [] if value is None else [value]:
        if not isinstance(item, int) or isinstance(item, bool):
            raise CaptureError(f"a special token id must be an integer, is {value!r}", where=str(path))
        if item >= 0:
            found.append(item)
    return tuple(found)


def _token(value: object) -> str:
    """A token's text: a string, or the content of an added-token object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
