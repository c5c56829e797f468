"""raise_router: softmax before and after the choice, normalized or not; declines."""

from __future__ import annotations

import pytest

from fretsaw.passes.api import apply
from fretsaw.passes.canonical.raise_router import raise_router, router_sites
from tests.passes.kit import equivalent, golden, read, untouched

HEAD = "graph @g(%x: f32[T, 6]) -> (%y, %z) {\n  dim T in [1, 64]\n"
BEFORE = (
    HEAD
    + """  %p: f32[T, 6] = softmax(%x) {axis = 1}
  %v: f32[T, 2], %i: i64[T, 2] = topk(%p) {k = 2}
  %s: f32[T, 1] = sum(%v) {axis = 1, keepdims = true}
  %w: f32[T, 2] = div(%v, %s)
  %y: f32[T, 2] = neg(%w)
  %z: i64[T, 2] = neg(%i)
}"""
)
PLAIN = (
    HEAD
    + """  %p: f32[T, 6] = softmax(%x) {axis = 1}
  %v: f32[T, 2], %i: i64[T, 2] = topk(%p) {k = 2}
  %y: f32[T, 2] = neg(%v)
  %z: i64[T, 2] = neg(%i)
}"""
)
LATE = (
    HEAD
    + """  %v: f32[T, 2], %i: i64[T, 2] = topk(%x) {k = 2}
  %w: f32[T, 2] = softmax(%v) {axis = 1}
  %y: f32[T, 2] = neg(%w)
  %z: i64[T, 2] = neg(%i)
}"""
)


def routed(attrs: str) -> str:
    return (
        HEAD
        + f"""  %i.router: i64[T, 2], %i.router.1: f32[T, 2] = router(%x) {{{attrs}}}  // <raise_router>
  %y: f32[T, 2] = neg(%i.router.1)
  %z: i64[T, 2] = neg(%i.router)
}}"""
    )


FORMS = [(BEFORE, "k = 2, normalize = true"), (PLAIN, "k = 2"), (LATE, 'k = 2, softmax = "after"')]


@pytest.mark.parametrize(("before", "attrs"), FORMS)
def test_golden(before: str, attrs: str) -> None:
    golden(raise_router, before, routed(attrs))
    equivalent(raise_router, before, 24)  # 4 x 6 experts
    assert len(router_sites(read(before))) == 1
    assert not router_sites(apply(raise_router, read(before))[0])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PLAIN.replace("T, ", "T, 3, ").replace("axis = 1", "axis = 2"), "logits must be [T, E], are f32[T, 3, 6]"),
        (PLAIN.replace("-> (%y, %z)", "-> (%y, %i)"), "the choice is a graph output"),
        (LATE.replace("neg(%w)", "add(%w, %v)"), "the chosen logits have other readers than the softmax"),
        (BEFORE.replace("neg(%w)", "add(%w, %v)"), "the weights are read both before and after they are normalized"),
    ],
)
def test_declines(text: str, reason: str) -> None:
    assert untouched(raise_router, text) == [(reason, "v")]


def test_choices_without_softmax_are_none_of_its_business() -> None:
    text = LATE.replace("softmax(%v) {axis = 1}", "sigmoid(%v)")
    assert untouched(raise_router, text) == [] and not router_sites(read(text))
