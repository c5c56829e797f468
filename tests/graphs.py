"""Generated graphs for hypothesis. The generator is ``fretsaw.tools.fuzz``; here its choices are hypothesis' own, so a
failing graph shrinks."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from fretsaw.ir import Graph
from fretsaw.tools.fuzz.generate import random_graph


def graphs(size: int = 8, *, odd: bool = True) -> st.SearchStrategy[Graph]:
    """Well-typed graphs of up to ``size`` nodes and what feeds them."""
    return st.randoms(use_true_random=False).map(lambda rng: random_graph(rng, size=size, odd=odd))


def sources() -> st.SearchStrategy[random.Random]:
    """A source of choices for a generator or for damage."""
    return st.randoms(use_true_random=False)
