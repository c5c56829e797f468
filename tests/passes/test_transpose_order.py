"""Two transposes as one, for all permutations: most pairs of them do not commute."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from fretsaw.ir import run
from fretsaw.passes.api import apply
from fretsaw.passes.canonical.cancel_transposes import compose_transposes
from tests.passes.kit import read

SIZES = (2, 3, 4, 5)


@pytest.mark.parametrize("rank", [3, 4])
def test_any_two_transposes_are_the_one_they_make(rank: int) -> None:
    sizes = SIZES[:rank]
    x = np.arange(np.prod(sizes), dtype=np.float32).reshape(sizes)
    for first in permutations(range(rank)):
        for second in permutations(range(rank)):
            inner, outer = x.transpose(first), x.transpose(first).transpose(second)
            graph = read(
                f"graph @g(%x: f32{list(x.shape)}) -> (%y) {{\n"
                f"  %t: f32{list(inner.shape)} = transpose(%x) {{perm = {list(first)}}}\n"
                f"  %u: f32{list(outer.shape)} = transpose(%t) {{perm = {list(second)}}}\n"
                f"  %y: f32{list(outer.shape)} = neg(%u)\n}}"
            )
            after, _ = apply(compose_transposes, graph)
            assert len(after.nodes) < len(graph.nodes)
            assert np.array_equal(run(after, {"x": x})[0], -outer), (first, second)
