"""Runs artifacts of the NumPy backend, from the file alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from fretsaw.backends.artifact import Container
from fretsaw.ir import Const, Graph, ReferenceKvCache, parse, run
from fretsaw.ir.types import DType, numpy_dtype


@dataclass(frozen=True)
class Runner:
    """A loaded artifact.

    Args:
        chunk: Most tokens of a step.
        layers: Attention layers, for the cache.
    """

    graph: Graph
    chunk: int
    layers: int

    @staticmethod
    def open(path: Path) -> Runner:
        """Read the variant whose loader is numpy, and the weights.

        Raises:
            ArtifactError: the file is no artifact, or damaged.
            StopIteration: it has no such variant.
        """
        container = Container.open(path)
        container.verify()
        manifest = cast("dict[str, Any]", container.manifest)
        section = next(v["section"] for v in manifest["variants"] if v.get("loader") == "numpy")
        raw = container.section(manifest["weights"]["section"])
        consts = {entry["name"]: _const(raw, entry) for entry in manifest["weights"]["tensors"]}
        graph = parse(container.text(section), consts)
        return Runner(graph, manifest["program"]["chunk_tokens"], manifest["kv"]["layers"])

    def generate(self, prompt: Sequence[int], count: int) -> list[int]:
        """The ``count`` likeliest tokens after ``prompt``, one by one."""
        cache = ReferenceKvCache(self.layers)
        ids, read = list(prompt), 0
        while len(ids) < len(prompt) + count:
            part = ids[read : read + self.chunk]
            logits = self._step(cache, part, read)
            read += len(part)
            if read == len(ids):
                ids.append(int(logits[-1].argmax()))
        return ids[len(prompt) :]

    def _step(self, cache: ReferenceKvCache, tokens: Sequence[int], position: int) -> np.ndarray:
        """Logits [1, V] of the last of ``tokens``, the first of which is at ``position``."""
        cache.begin_step([len(tokens)])
        (logits,) = run(self.graph, {
            "tokens": np.array(tokens, np.int32),
            "positions": np.arange(position, position + len(tokens), dtype=np.int32),
            "rows": np.array([len(tokens) - 1], np.int32),
            "kv": cache,
        })  # fmt: skip
        return logits


def _const(raw: memoryview, entry: dict[str, Any]) -> Const:
    dtype: DType = entry["dtype"]
    piece = raw[entry["offset"] : entry["offset"] + entry["bytes"]]
    return Const.of(np.frombuffer(piece, numpy_dtype(dtype)).reshape(entry["shape"]), dtype)
