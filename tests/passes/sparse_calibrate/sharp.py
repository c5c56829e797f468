"""A small random Llama whose attention is sharp enough that reading too little shows, in the packed phase."""

from __future__ import annotations

import numpy as np

from fretsaw.ir import Graph, parse
from fretsaw.passes.pipeline import run_pipeline
from tests.passes.llama_text import VOCAB, llama
from tests.passes.planted import with_const

CALIB = tuple(int(i) for i in np.random.default_rng(7).integers(0, VOCAB, 700))


def captured(layers: int = 2) -> Graph:
    """Queries eight times as long as random weights make them."""
    graph = parse(llama(layers), seed=0)
    for i in range(layers):
        graph = with_const(graph, f"l{i}.q_proj.weight", lambda w: 8 * w)
    return graph


def packed(layers: int = 2) -> Graph:
    return run_pipeline(captured(layers)).graph
