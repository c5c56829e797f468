"""What the tests of error texts share: a small graph, and the whole message of what was raised."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent

import pytest

from fretsaw.ir import Graph, parse
from fretsaw.ir.errors import FretsawError

BLOCK = """
graph @block(%x: f32[2, 8]) -> (%y) {
  const %gain: f32[8]
  const %w: f32[4, 8]
  %a: f32[2, 8] = add(%x, %x)  // layers.0 (modeling.py:10)
  %n: f32[2, 8] = rms_norm(%a, %gain) {eps = 1e-05}  // layers.0.norm (modeling.py:12)
  %q: f32[2, 4] = linear(%n, %w)  // layers.0.q_proj (modeling.py:14)
  %r: f32[2, 4] = silu(%q)  // layers.0.act
  %s: f32[2, 4] = exp(%r)  // layers.0.act
  %y: f32[2, 4] = neg(%s)  // layers.0
}
"""


def block(*changes: tuple[str, str]) -> Graph:
    """The graph above with parts of its text exchanged; constants hold seeded values."""
    text = BLOCK
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse(text.strip(), seed=0)


def message(kind: type[FretsawError], fails: Callable[[], object]) -> str:
    """The whole text of the error of exactly that kind."""
    with pytest.raises(kind) as error:
        fails()
    assert type(error.value) is kind and str(error.value) == error.value.render()
    return str(error.value)


def text(expected: str) -> str:
    """An inline text without its indentation."""
    return dedent(expected).strip("\n")
