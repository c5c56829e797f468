"""Tiny models of the compiled families, captured and packed once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from fretsaw.frontend.capture import capture
from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.ir import Graph
from fretsaw.passes.pipeline import run_pipeline
from tests import families

Packed = Callable[[str], tuple[Graph, PreTrainedModel]]


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """``packed(family)`` -> (packed graph, the transformers model it came from)."""

    @cache
    def make(name: str) -> tuple[Graph, PreTrainedModel]:
        folder: Path = tmp_path_factory.mktemp(name) / name
        model = families.save(name, folder)
        return run_pipeline(capture(load_checkpoint(folder))).graph, model

    return make
