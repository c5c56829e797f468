"""What a pass may bring to its own measurement: somebody who looks on while the graph after it runs.

A pass that changes part of a model (attention over lists, say) knows what to measure there; the checks know only that
graphs run and predictions differ. So the checks ask the pass for an inspector, show it every node of a run, and take
its numbers into the evidence. An inspector answers for nodes of its choice as the graph before the pass would have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from fretsaw.ir import Graph, Node, Value

Look = Callable[[Value], object]  # from a value that is alive to what it holds
Note = Callable[[str], None]  # told what something long is at
Numbers = dict[str, str | float | int]


class Text(Protocol):
    """What a graph is run on."""

    @property
    def ids(self) -> np.ndarray:
        """Tokens i64[S]."""

    @property
    def source(self) -> str:
        """Where they come from, for people."""


class Inspector(Protocol):
    """Measures one run of a graph."""

    @property
    def name(self) -> str:
        """What it measures, in a word: the key of its report, which an artifact keeps as ``NAME.json``."""

    def look(self, node: Node, value: Look) -> list[np.ndarray] | None:
        """What stands for the node's results, as the graph before the pass has them; None: the node runs."""

    def idle(self) -> str:
        """Why the pass did nothing on this text; empty where it did something."""

    def numbers(self) -> Numbers:
        """For the ledger."""

    def to_json(self) -> dict[str, object]:
        """Everything, as plain data."""


Inspect = Callable[[Graph, Text, int, Note], Inspector | None]
"""From the graph after a pass, the text, the first row that it may change and a note: who looks on; None: nobody."""
