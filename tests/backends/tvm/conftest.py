"""Tiny models of the compiled families, captured and packed once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from transformers import PreTrainedModel

from fretsaw.ir import Graph
from fretsaw.passes.pipeline import run_pipeline
from tests.captured import CapturedFamily

Packed = Callable[[str], tuple[Graph, PreTrainedModel]]


@pytest.fixture(scope="session")
def packed(captured: Callable[[str], CapturedFamily]) -> Packed:
    """``packed(family)`` -> (packed graph, the transformers model it came from)."""

    @cache
    def make(name: str) -> tuple[Graph, PreTrainedModel]:
        found = captured(name)
        return run_pipeline(found.graph).graph, found.model

    return make
