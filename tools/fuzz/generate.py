"""Random well-typed graphs over the whole op catalogue.

Every choice comes from one ``random.Random``: a seed gives one graph, and hypothesis' own source shrinks it. Operands
are mostly values that exist already, so graphs are connected; what does not exist yet becomes an input, a constant or
a ``full``.
"""

from __future__ import annotations

import random

from fretsaw.ir import Graph
from fretsaw.ir.phases import legal_ops
from fretsaw.tools.fuzz.maker import Maker
from fretsaw.tools.fuzz.ops import emitters


def random_graph(rng: random.Random, *, size: int = 12, odd: bool = True) -> Graph:
    """A well-typed graph with about ``size`` nodes; the same one for the same state of ``rng``."""
    maker = Maker(rng, odd=odd)
    allowed = legal_ops(maker.phase)
    known = emitters()
    legal = [op for op in known if op in allowed]
    for _ in range(rng.randint(0, size)):
        op = rng.choice(legal)
        operands, attrs = known[op](maker)
        maker.emit(op, operands, attrs)
    return maker.finish()
