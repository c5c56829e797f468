"""Tiny models of every family, saved and captured once in a process for all test files that start from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from fretsaw.frontend.capture import Captured, capture_all
from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.ir import Graph
from tests import families


@dataclass(frozen=True)
class CapturedFamily:
    """A family's checkpoint, the model it was saved from, and what capturing gave. Nobody changes any of them."""

    folder: Path
    model: PreTrainedModel
    captured: Captured

    @property
    def graph(self) -> Graph:
        return self.captured.graph

    @staticmethod
    def make(name: str, folder: Path) -> CapturedFamily:
        model = families.save(name, folder)
        return CapturedFamily(folder, model, capture_all(load_checkpoint(folder)))
