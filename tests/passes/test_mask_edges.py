"""A window written as a distance: where its edge lies, for each comparison that may draw it."""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.ir import run
from fretsaw.passes.canonical.masks import Mask
from tests.passes.test_masks import graph_of, inputs, masked, meaning

DISTANCE = "%a: i64[1, 1, S, S] = abs(%gap)\n"


@pytest.mark.parametrize(
    ("comparison", "reach"), [("le(%a, %two)", 2), ("lt(%a, %two)", 1), ("ge(%two, %a)", 2), ("gt(%two, %a)", 1)]
)
def test_the_edge_of_a_band(comparison: str, reach: int) -> None:
    lines = f"{DISTANCE} %m: bool[1, 1, S, S] = {comparison}"
    want = Mask(reach, reach)
    assert masked(lines) == want
    for size in (1, 2, 3, 7):
        feeds = inputs(size, seed=size)
        (got,) = run(graph_of(lines), dict(feeds))
        seen = np.broadcast_to(got, (2, 1, size, size))[:, 0]
        assert np.array_equal(seen, meaning(want, feeds, size))
