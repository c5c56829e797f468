"""What a pass may do before the passes run: search for its options on calibration text.

A pass that has to search says so by its ``prepare`` hook, from its options to a :class:`Search`, or None where these
options need none. ``prepare_passes`` in passes/prepare.py runs the searches; nobody knows which pass searches for what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fretsaw.ir import Graph
from fretsaw.passes.kit.inspector import Note


@dataclass(frozen=True)
class Preparation:
    """What a search may use.

    Args:
        graph: Makes the graph that the pass would get, with the passes that were requested before it.
        calib: Tokens of the calibration text; empty where none was given.
        calib_source: Its name, for people.
        max_kl: Limit of divergence that the compile holds, in nats a token; None: there is none.
        output: The artifact that is being made; what a search writes lies beside it.
        note: Told what a long run is at.
        stage: Told what begins, and what was found.
    """

    graph: Callable[[], Graph]
    calib: tuple[int, ...]
    calib_source: str
    max_kl: float | None
    output: Path
    note: Note
    stage: Note


@dataclass(frozen=True)
class Search:
    """A search that a pass wants.

    Args:
        what: In two words, for the progress of a compile.
        run: Gives the options that the pass has from then on.
    """

    what: str
    run: Callable[[Preparation], object]


Prepare = Callable[[Any], Search | None]
