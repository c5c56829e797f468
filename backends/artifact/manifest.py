"""The manifest: its schema as a table, one check that names the first key that is missing or wrong.

Unknown keys are ignored, so that newer writers can add some; missing ones are an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fretsaw.ir.errors import ArtifactError
from fretsaw.ir.formats import FORMATS

TENSOR_TYPES = ("f32", "f16", "bf16", "i32", "i64")
KV_TYPES = ("f32", "f16", "int8")
Kinds = type | tuple[type, ...]
_NONE = type(None)

# Path of a key -> types it may have. "[]" walks a list. "?" after a name: it may be absent, with all that is in it.
SCHEMA: Mapping[str, Kinds] = {
    "format_version": int,
    "producer": dict,
    "model.family": str,
    "model.architecture": str,
    "model.kind": str,
    "model.context": int,
    "model.vocab_size": int,
    "model.checkpoint_sha256": str,
    "generation.bos_token_id": (int, _NONE),
    "generation.eos_token_ids[]": int,
    "generation.pad_token_id": (int, _NONE),
    "tokenizer?.section": str,
    "tokenizer?.chat_template": (str, _NONE),
    "tokenizer?.bos_token": (str, _NONE),
    "tokenizer?.eos_token": (str, _NONE),
    "weights.section": str,
    "weights.tensors[].name": str,
    "weights.tensors[].dtype": str,
    "weights.tensors[].shape[]": int,
    "weights.tensors[].offset": int,
    "weights.tensors[].bytes": int,
    "kv?.layers": int,
    "kv?.kv_heads": int,
    "kv?.key_size": int,
    "kv?.value_size": int,
    "kv?.page_tokens": int,
    "kv?.dtype": str,
    "embedding?.width": int,
    "embedding?.pooling": (str, _NONE),
    "embedding?.normalize": bool,
    "program.entry": str,
    "program.chunk_tokens": int,
    "program.chunk_align?": int,
    "program.whole_prompts?": bool,
    "program.dense?.entry": str,
    "program.dense?.until": int,
    "program.dense?.prompts": bool,
    "program.dense?.single": bool,
    "variants[].name": str,
    "variants[].section": str,
    "variants[].requires[]": str,
    "memory.weights_bytes": int,
    "memory.kv_bytes_per_token": int,
    "memory.workspace_bytes": int,
    "passes[].name": str,
    "passes[].keeps": str,
    "passes[].options": dict,
    "passes[].hit": int,
    "passes[].declined": int,
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the weights section: offset relative to the section, sizes in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def validate_manifest(manifest: Mapping[str, object], sections: Mapping[str, int]) -> None:
    """Check the schema, that named sections exist, and that tensors fit in the weights section.

    Args:
        sections: Name and size in bytes of every section of the file.

    Raises:
        ArtifactError: the first key that is missing, has the wrong type, or contradicts the file.
    """
    for path, kinds in SCHEMA.items():
        for where, value in _walk(manifest, path.split("."), ""):
            if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
                raise ArtifactError(f"manifest: {where} must be {_names(kinds)}, is {value!r}")
            if kinds is int and isinstance(value, int) and value < 0 and not where.startswith("generation"):
                raise ArtifactError(f"manifest: {where} is negative: {value}")
    kind = manifest["model"]["kind"]  # type: ignore[index]  # the walk above has seen it
    needed = "embedding" if kind == "encoder" else "kv"
    if needed not in manifest:
        raise ArtifactError(f"manifest: {needed} is missing, which a model of kind {kind} has")
    if "kv" in manifest and manifest["kv"]["dtype"] not in KV_TYPES:  # type: ignore[index]
        raise ArtifactError(f"manifest: kv.dtype must be one of {', '.join(KV_TYPES)}, is {manifest['kv']['dtype']!r}")  # type: ignore[index]
    _check_prompt_rule(manifest["program"], manifest.get("kv", {}).get("page_tokens", 1))  # type: ignore[arg-type, attr-defined]
    for where, name in _named_sections(manifest):
        if name not in sections:
            raise ArtifactError(f"manifest: {where} names section {name}, which is not there")
    weights = manifest["weights"]
    assert isinstance(weights, dict)
    _check_tensors(tensors(manifest), sections[weights["section"]])


def tensors(manifest: Mapping[str, object]) -> list[Tensor]:
    """The tensors that a validated manifest lists."""
    weights = manifest["weights"]
    assert isinstance(weights, dict)
    return [Tensor(t["name"], t["dtype"], tuple(t["shape"]), t["offset"], t["bytes"]) for t in weights["tensors"]]


def _check_prompt_rule(program: Mapping[str, int], page_tokens: int) -> None:
    """Prompts are cut at multiples of ``chunk_align`` tokens, which is 1 or a page; two of them fit a step."""
    align, chunk = program.get("chunk_align", 1), program["chunk_tokens"]
    if align == 1:
        return
    if align != page_tokens:
        raise ArtifactError(f"manifest: program.chunk_align is {align}, not 1 or a page of {page_tokens} tokens")
    if chunk < 2 * align:
        raise ArtifactError(f"manifest: program.chunk_tokens is {chunk}, less than two times chunk_align")


def _check_tensors(found: list[Tensor], section_bytes: int) -> None:
    end, names = 0, set()
    for tensor in found:
        if tensor.dtype not in TENSOR_TYPES:
            raise ArtifactError(f"manifest: tensor {tensor.name} has unknown dtype {tensor.dtype}")
        expected = FORMATS[tensor.dtype].nbytes(tensor.shape)
        if tensor.nbytes != expected:
            raise ArtifactError(f"manifest: tensor {tensor.name} has {tensor.nbytes} bytes, its shape says {expected}")
        if tensor.offset % 64 or tensor.offset < end or tensor.offset + tensor.nbytes > section_bytes:
            raise ArtifactError(
                f"manifest: tensor {tensor.name} at {tensor.offset} is misplaced in {section_bytes} bytes"
            )
        if tensor.name in names:
            raise ArtifactError(f"manifest: tensor {tensor.name} is listed twice")
        names.add(tensor.name)
        end = tensor.offset + tensor.nbytes


def _named_sections(manifest: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for path in ("weights.section", "tokenizer?.section", "tokenizer?.chat_template", "variants[].section"):
        for where, value in _walk(manifest, path.split("."), ""):
            if value is not None:
                yield where, value


def _walk(value: object, path: list[str], where: str) -> Iterator[tuple[str, object]]:
    """Every value at ``path``, with its place. Missing keys are errors unless the object is optional."""
    if not path:
        yield where, value
        return
    step = path[0]
    key = step.rstrip("[]?")
    at = f"{where}.{key}" if where else key
    if not isinstance(value, dict | Mapping):
        raise ArtifactError(f"manifest: {where or 'the manifest'} must be an object")
    if key not in value:
        if step.endswith("?") or (where == "tokenizer" and key == "chat_template"):
            return
        raise ArtifactError(f"manifest: {at} is missing")
    inner = value[key]
    if not step.endswith("[]"):
        yield from _walk(inner, path[1:], at)
        return
    if not isinstance(inner, list):
        raise ArtifactError(f"manifest: {at} must be a list")
    for i, item in enumerate(inner):
        yield from _walk(item, path[1:], f"{at}[{i}]")


def _names(kinds: Kinds) -> str:
    all_kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    words = {int: "a whole number", bool: "true or false", str: "text", dict: "an object", _NONE: "null"}
    return " or ".join(words[k] for k in all_kinds)
