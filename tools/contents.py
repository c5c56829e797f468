"""What goes into an artifact: manifest and sections, from the checkpoint, the passes and the program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np

from fretsaw.backends.artifact import validate_manifest
from fretsaw.backends.artifact.layout import FORMAT_VERSION, align
from fretsaw.ir import to_text
from fretsaw.ir.errors import LoweringError
from fretsaw.passes.evidence.feeds import vocabulary

if TYPE_CHECKING:
    from fretsaw.backends.built import Built
    from fretsaw.backends.tensor import Tensor
    from fretsaw.frontend.checkpoint import Checkpoint
    from fretsaw.passes.pipeline import PipelineResult
    from fretsaw.tools.chosen_backend import ChosenBackend

Chunks = Iterable[memoryview]


@dataclass(frozen=True)
class Contents:
    """A manifest and the sections it names, weights still to be computed while writing."""

    manifest: Mapping[str, object]
    sections: Sequence[tuple[str, Chunks]]

    @staticmethod
    def of(checkpoint: Checkpoint, result: PipelineResult, chosen: ChosenBackend, built: Built) -> Contents:
        """Contents for a compiled model.

        Raises:
            ArtifactError: the manifest contradicts the sections, or the step program is no good (our bug).
        """
        sections: list[tuple[str, Chunks]] = [
            (f"ir/{phase}", [_utf8(to_text(graph) + "\n")]) for phase, graph in result.stages
        ]
        sections.append(("evidence.json", [_utf8(_evidence(result))]))
        for name, report in sorted(result.reports.items()):
            sections.append((f"{name}.json", [_utf8(_json(report.to_json()))]))
        if checkpoint.tokenizer_json is not None:
            sections.append(("tokenizer.json", [memoryview(_minified(checkpoint.tokenizer_json))]))
        if checkpoint.chat_template is not None:
            sections.append(("chat_template", [_utf8(checkpoint.chat_template)]))
        sections += [(name, [memoryview(data)]) for name, data in built.sections]
        sections += [(f"code/{variant.name}", [memoryview(variant.code)]) for variant in built.variants]
        placed, total = _place(built.tensors)
        manifest = _manifest(checkpoint, result, chosen, built, placed)
        sizes = {name: 0 for name, _ in sections} | {"weights": total}
        validate_manifest(manifest, sizes)
        built.verify(manifest)
        sections.append(("weights", _weight_chunks(built.tensors, placed)))
        return Contents(manifest, sections)


def _minified(text: bytes) -> bytes:
    """The same JSON without indentation: a tokenizer is read at every start, and half of a pretty one is blanks."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # an escaped lone surrogate has no UTF-8 form
        return text


def producer(built: Built) -> dict[str, str]:
    """Versions of everything that shaped the artifact."""
    packages = {"fretsaw": "fretsaw", "torch": "torch", "transformers": "transformers"}
    found = {}
    for key, package in packages.items():
        try:
            found[key] = version(package)
        except PackageNotFoundError:  # a source tree on the path
            found[key] = "0.1.0" if key == "fretsaw" else "unknown"
    return found | dict(built.producer)


def _manifest(
    checkpoint: Checkpoint, result: PipelineResult, chosen: ChosenBackend, built: Built,
    placed: Sequence[Mapping[str, object]],
) -> dict[str, object]:  # fmt: skip
    manifest: dict[str, object] = {
        "format_version": FORMAT_VERSION,
        "producer": producer(built),
        "backend": chosen.to_json(),
        "model": {
            "family": checkpoint.family,
            "architecture": checkpoint.architecture,
            "kind": checkpoint.kind,
            "context": checkpoint.context,
            "vocab_size": _vocabulary(checkpoint, result),
            "checkpoint_sha256": checkpoint.digest,
        },
        "generation": {
            "bos_token_id": checkpoint.bos_token_id,
            "eos_token_ids": list(checkpoint.eos_token_ids),
            "pad_token_id": checkpoint.pad_token_id,
        },
    }
    if checkpoint.tokenizer_json is not None:
        manifest["tokenizer"] = {
            "section": "tokenizer.json",
            **({"chat_template": "chat_template"} if checkpoint.chat_template is not None else {}),
            "bos_token": checkpoint.bos_token,
            "eos_token": checkpoint.eos_token,
        }
    manifest |= {
        "weights": {"section": "weights", "tensors": list(placed)},
        **_cache_or_embedding(checkpoint, result, built),
        "program": dict(built.program),
        "variants": [variant.to_json() for variant in built.variants],
        "memory": dict(built.memory),
        "passes": [
            {
                "name": e.name, "phase": e.phase, "keeps": e.keeps, "options": dict(e.options), "hit": e.hit,
                "declined": len(e.declined),
            }
            for e in result.ledger
        ],
        "checks": checks_of(result),
    }  # fmt: skip
    return manifest


def checks_of(result: PipelineResult) -> str:
    """``passed``: every pass was held to what it keeps. ``off``: --no-check. ``partial``: some pass was not checked, or
    approximates and no limit held it; evidence.json says which."""
    if result.checks["status"] == "unchecked: --no-check":
        return "off"
    return "passed" if all(entry.check["status"] == "passed" for entry in result.ledger) else "partial"


def _cache_or_embedding(checkpoint: Checkpoint, result: PipelineResult, built: Built) -> dict[str, object]:
    """What a decoder keeps between steps, or what an encoder gives."""
    if checkpoint.kind == "decoder":
        return {"kv": dict(built.cache)}
    return {"embedding": _embedding(checkpoint, result)}


def _embedding(checkpoint: Checkpoint, result: PipelineResult) -> dict[str, object]:
    """What an encoder gives: one vector per text, or without a pooling one per token."""
    sentence = checkpoint.sentence
    return {
        "width": result.graph.outputs[0].tensor.shape[-1],
        "pooling": None if sentence is None else sentence.pooling,
        "normalize": sentence is not None and sentence.normalize,
    }


def _vocabulary(checkpoint: Checkpoint, result: PipelineResult) -> int:
    """Rows of the logits, or of the table that an encoder looks its tokens up in."""
    if checkpoint.kind == "encoder":
        return vocabulary(result.graph)
    size = result.graph.outputs[0].tensor.shape[-1]
    if not isinstance(size, int):
        raise LoweringError(f"the number of logits must be fixed, is {size}", where=result.graph.name)
    return size


def _evidence(result: PipelineResult) -> str:
    passes = [entry.to_json() for entry in result.ledger]
    return _json({"checks": dict(result.checks), "passes": passes})


def _json(data: object) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _place(tensors: Sequence[Tensor]) -> tuple[list[dict[str, object]], int]:
    """Manifest entries with 64-byte aligned offsets, and the bytes of the section."""
    placed: list[dict[str, object]] = []
    end = 0
    for tensor in tensors:
        offset = align(end)
        shape = [int(d) for d in tensor.type.shape if isinstance(d, int)]
        placed.append({"name": tensor.name, "dtype": tensor.type.dtype, "shape": shape, "offset": offset,
                       "bytes": tensor.nbytes})  # fmt: skip
        end = offset + tensor.nbytes
    return placed, end


def _weight_chunks(tensors: Sequence[Tensor], placed: Sequence[Mapping[str, object]]) -> Iterator[memoryview]:
    """Bytes of the section, one tensor in memory at a time."""
    end = 0
    for tensor, entry in zip(tensors, placed, strict=True):
        offset = entry["offset"]
        assert isinstance(offset, int)
        if offset > end:
            yield memoryview(bytes(offset - end))
        array = np.ascontiguousarray(tensor.make())
        if array.nbytes != tensor.nbytes:
            raise LoweringError(f"tensor {tensor.name} has {array.nbytes} bytes, expected {tensor.nbytes}")
        yield array.reshape(-1).view(np.uint8).data
        end = offset + tensor.nbytes


def _utf8(text: str) -> memoryview:
    return memoryview(text.encode())
