"""Mask-building code in plain torch: imported values against torch, refusals, and attention raised from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as nnf

from fretsaw.ir import Graph, run
from fretsaw.ir.errors import CaptureError
from fretsaw.passes.api import apply
from fretsaw.passes.canonical.drop_noops import drop_noops
from fretsaw.passes.canonical.fold_constants import fold_constants
from fretsaw.passes.canonical.raise_attention import raise_attention, written_out
from tests.frontend.test_import_aten import imported


def rows_and_columns(x: Tensor) -> Tensor:
    table = x[..., 0]  # [B, S]
    b = torch.arange(x.shape[0])[:, None, None]
    q = torch.arange(x.shape[1])[None, :, None]
    return table[b, q] + table[b, torch.arange(x.shape[1])[None, None, :]]


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "logic": lambda x: (((x > 0) & (x < 0.5)) | (x == 1)).float(),
    "logical functions": lambda x: torch.logical_or(torch.logical_and(x > 0, x < 0.5), x > 0.9).float(),
    "where with a number first": lambda x: torch.where(x > 0, 1.5, x),
    "where with a number last": lambda x: torch.where(x > 0, x, -2.0),
    "where with two numbers": lambda x: torch.where(x > 0, 1.0, 0.0),
    "rows": lambda x: x[torch.arange(x.shape[0])],
    "rows and columns": rows_and_columns,
    "differences": lambda x: torch.diff(x, dim=1, prepend=x[:, :1] - 1),
    "differences without a start": lambda x: torch.diff(x, dim=2),
    "lower triangle": lambda x: (x @ x.transpose(1, 2)).tril(),
    "upper triangle": lambda x: (x @ x.transpose(1, 2)).triu(1),
    "maximum": lambda x: x - x.max(dim=-1, keepdim=True).values,
    "repeats": lambda x: x.repeat_interleave(3, dim=1),
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_torch_values(name: str) -> None:
    graph, module = imported(CASES[name])
    for batch, length in ((1, 1), (3, 7)):
        ids, positions = inputs(batch, length)
        (ours,) = run(graph, {"input_ids": ids, "positions": positions})
        want = module(torch.from_numpy(ids), torch.from_numpy(positions)).numpy()
        assert ours.dtype == want.dtype and ours.shape == want.shape
        np.testing.assert_allclose(ours, want, rtol=2e-5, atol=2e-6)


def inputs(batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(5).integers(1, 50, (batch, length))
    return ids, np.broadcast_to(np.arange(length), ids.shape).copy()


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: (x > 0).int() & 1, "there is no import rule"),
        (lambda x: (x > 0).int() & (x < 1).int(), "only booleans are supported"),
        (lambda x: torch.diff(x, n=2, dim=2), "only first differences without append are supported"),
        (lambda x: x.max(dim=-1).indices.float(), "the place of the maximum is not supported"),
        (lambda x: x[torch.arange(1), torch.arange(1)], "2 indices into a tensor of rank 3 are not supported"),
    ],
)
def test_refusals(fn: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(CaptureError) as caught:
        imported(fn)
    assert message in caught.value.what


def heads(x: Tensor) -> Tensor:
    return x.view(*x.shape[:2], 2, 4).transpose(1, 2)


def joined(y: Tensor) -> Tensor:
    return y.transpose(1, 2).flatten(2)


def by_function(x: Tensor) -> Tensor:
    """The library function with a boolean mask of a window."""
    y, at = heads(x), torch.arange(x.shape[1])
    gap = at[:, None] - at[None, :]
    return joined(nnf.scaled_dot_product_attention(y, y, y, attn_mask=(gap >= 0) & (gap < 3), scale=0.3))


def by_added_mask(x: Tensor) -> Tensor:
    y, size = heads(x), x.shape[1]
    mask = torch.full((size, size), float("-inf")).triu(1)
    return joined(nnf.scaled_dot_product_attention(y, y, y, attn_mask=mask))


def grouped(x: Tensor) -> Tensor:
    """One key head for two query heads, left to torch."""
    y = heads(x)
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    k = y[:, :1]
    return joined(nnf.scaled_dot_product_attention(y, k, k, attn_mask=mask, enable_gqa=True))


def by_hand(x: Tensor) -> Tensor:
    """As textbooks write it."""
    y, size = heads(x), x.shape[1]
    scores = y @ y.transpose(-2, -1) / 4**0.5
    hidden = torch.triu(torch.ones(size, size, dtype=torch.bool), diagonal=1)
    return joined(scores.masked_fill(hidden, float("-inf")).softmax(-1) @ y)


def unmasked(x: Tensor) -> Tensor:
    y = heads(x)
    return joined(torch.softmax(y @ y.transpose(-2, -1) * 0.5, -1) @ y)


@pytest.mark.parametrize(
    ("fn", "attrs", "kv_heads"),
    [
        (by_function, {"window": 3, "causal": True, "scale": 0.3}, 2),
        (by_added_mask, {"window": 0, "causal": True, "scale": 0.5}, 2),
        (grouped, {"window": 0, "causal": True, "scale": 0.5}, 1),
        (by_hand, {"window": 0, "causal": True, "scale": 0.5}, 2),
        (unmasked, {"window": 0, "causal": False, "scale": 0.5}, 2),
    ],
)
def test_attention_of_plain_torch_is_raised(
    fn: Callable[[Tensor], Tensor], attrs: dict[str, object], kv_heads: int
) -> None:
    graph, module = imported(fn)
    assert len(written_out(folded(graph))) == 1
    after, _ = apply(raise_attention, folded(graph))
    (node,) = [n for n in after.nodes if n.op == "attention"]
    assert not written_out(after) and not after.count("softmax")
    assert {name: node.attr(name) for name in attrs} == pytest.approx(attrs, rel=1e-7)
    assert node["k"].tensor.shape[2] == kv_heads
    ids, positions = inputs(3, 7)
    (ours,) = run(after, {"input_ids": ids, "positions": positions})
    want = module(torch.from_numpy(ids), torch.from_numpy(positions)).numpy()
    np.testing.assert_allclose(ours, want, rtol=2e-5, atol=2e-6)


def folded(graph: Graph) -> Graph:
    for p in (fold_constants, drop_noops):
        graph, _ = apply(p, graph)
    return graph
