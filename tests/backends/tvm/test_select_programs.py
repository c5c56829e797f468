"""Whole programs whose selectors choose blocks: every lowered op, against the interpreter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fretsaw.backends.tvm.build import build
from fretsaw.ir import ReferenceKvCache, Value, run
from fretsaw.ir.op import Attr
from fretsaw.ir.phases import selectors
from tests.backends.tvm.conftest import Packed
from tests.backends.tvm.paged import PagedRunner
from tests.backends.tvm.test_select_learned import OPS as LEARNED
from tests.backends.tvm.test_sparse_attention import V3, Site, options, rewritten, steps


def attend(site: Site, mask: Value, **attrs: Attr) -> None:
    idx, cnt = site.emit("compact_blocks", mask)
    site.emit("block_attention", site.node["kv"], site.node["q"], idx, cnt, **site.attrs, **attrs)


def facts(site: Site) -> tuple[Value, Value, int, dict[str, Attr]]:
    """The cache, queries, heads of them, and attributes of ops that score keys (kv_heads is 2 in this model)."""
    node = site.node
    heads = node["q"].tensor.shape[1]
    assert isinstance(heads, int)
    return node["kv"], node["q"], heads, {"layer": node.int_attr("layer"), "kv_heads": 2}


def antidiagonals(site: Site) -> None:
    kv, q, heads, keys = facts(site)
    (scores,) = site.emit("antidiagonal_scores", kv, q, **keys, scale=site.attrs["scale"], stride=8)
    (shared,) = site.emit("pool_heads", scores, groups=2)
    (forced,) = site.emit("forced_blocks", kv, groups=2, sink=1, local=1, dense_until=70)
    attend(site, *site.emit("select_top_p", kv, shared, forced, p=0.6))


def pools(site: Site) -> None:
    kv, q, heads, keys = facts(site)
    (qp,) = site.emit("pool_queries", kv, q)
    size = q.tensor.shape[2]
    (kp,) = site.emit("pool_keys", kv, **keys, size=size)
    (scores,) = site.emit("block_scores", kv, qp, kp, scale=site.attrs["scale"])
    (band,) = site.emit("band_scores", kv, qp, kp, scale=site.attrs["scale"], start=0, end=2)
    (forced,) = site.emit("forced_blocks", kv, groups=heads, local=1)
    (half,) = site.emit("select_share", kv, scores, forced, density=0.4)
    (most,) = site.emit("select_top_p", kv, *site.emit("softmax_blocks", band), forced, p=0.5)
    (above,) = site.emit("select_above", kv, *site.emit("softmax_blocks", scores), forced, threshold=0.3)
    (far,) = site.emit("strided_blocks", kv, stride=3, offsets=tuple(range(heads)))
    (both,) = site.emit("union_blocks", above, far)
    attend(site, *site.emit("pick_heads", half, most, both, choice=tuple(h % 3 for h in range(heads))))


def lines(site: Site) -> None:
    kv, q, heads, keys = facts(site)
    both = site.emit("line_scores", kv, q, **keys, scale=site.attrs["scale"], rows=20)
    (forced,) = site.emit("forced_blocks", kv, groups=heads, local=1)
    (best,) = site.emit("line_blocks", kv, *both, forced, columns=2, diagonals=3)
    (scores,) = site.emit("line_block_scores", kv, *both, columns=30, diagonals=30)
    (top,) = site.emit("select_top_k", kv, scores, forced, k=2)
    (flex,) = site.emit("flex_blocks", kv, *both, forced, gamma=0.3)
    (spans,) = site.emit("span_blocks", kv, sink=(3,) * heads, window=(70,) * heads)
    attend(site, *site.emit("pick_heads", best, top, flex, spans, choice=tuple(h % 4 for h in range(heads))))


def bounds(site: Site) -> None:
    kv, q, heads, keys = facts(site)
    size = q.tensor.shape[2]
    ends = [site.emit("pool_keys", kv, **keys, size=size, kind=k, decode=True)[0] for k in ("min", "max")]
    (scores,) = site.emit("bound_scores", kv, q, *ends, scale=site.attrs["scale"], decode=True)
    (forced,) = site.emit("forced_blocks", kv, groups=heads, local=1)
    (best,) = site.emit("select_top_k", kv, scores, forced, k=2)
    (halves,) = site.emit("halving_blocks", kv, q, forced, **keys, blocks=1, decode=True)
    (shared,) = site.emit("forced_blocks", kv, groups=2, local=1)
    (windows,) = site.emit("compressed_scores", kv, q, **keys, scale=site.attrs["scale"], decode=True)
    (kept,) = site.emit("select_top_k", kv, windows, shared, k=3)
    (wide,) = site.emit("elastic_blocks", kv, groups=1, alpha=0, beta=3)
    (whole,) = site.emit("prompt_blocks", kv, groups=1)
    choice = tuple((0, 1, 2, 3)[h % 4] for h in range(heads))
    (mixed,) = site.emit("pick_heads", best, halves, kept, wide, choice=choice)
    (prompts,) = site.emit("pick_heads", whole, choice=(0,) * heads)
    (decoding,) = site.emit("causal_blocks", kv, groups=heads)
    (all_of,) = site.emit("pick_heads", mixed, prompts, decoding, choice=(0,) * (heads - 1) + (2,))
    attend(site, all_of, decode=True)


def single_keys(site: Site) -> None:
    """Near blocks, the keys of far ones, and columns of what is left, in two merges."""
    kv, q, heads, keys = facts(site)
    scores, _ = site.emit("line_scores", kv, q, **keys, scale=site.attrs["scale"], rows=20)
    (near,) = site.emit("forced_blocks", kv, groups=heads, local=1)
    (far,) = site.emit("strided_blocks", kv, stride=3, offsets=tuple(range(heads)))
    (both,) = site.emit("union_blocks", near, far)
    columns = tuple(7 * (h % 2) for h in range(heads))
    first = site.emit("block_attention", kv, q, *site.emit("compact_blocks", near), lse=True, **site.attrs)
    second = site.emit("gather_attention", kv, q, *site.emit("block_tokens", kv, far, near), **site.attrs)
    third = site.emit(
        "gather_attention", kv, q, *site.emit("line_tokens", kv, scores, both, columns=columns), **site.attrs
    )
    merged = site.emit("merge_attention", *first, *second, lse=True)
    site.emit("merge_attention", *merged, *third)


METHODS = [antidiagonals, pools, lines, bounds, single_keys]
USED = set[str]()


@pytest.mark.parametrize("method", METHODS, ids=[m.__name__ for m in METHODS])
def test_programs_choose_what_the_interpreter_chooses(method: Callable[[Site], None], packed: Packed) -> None:
    graph, model = packed("llama")
    small = rewritten(graph, method)
    USED.update(n.op for n in small.nodes)
    runner, dense = (PagedRunner(build(g, options()), V3, sequences=2) for g in (small, graph))
    layers = sum(n.op == "kv_append" for n in graph.nodes)
    kv, at, apart = ReferenceKvCache(layers, 2), [0, 0], 0.0
    for tokens in steps(model.config.vocab_size):
        counts = [len(t) for t in tokens]
        kv.begin_step(counts)
        positions = np.concatenate([np.arange(a, a + n) for a, n in zip(at, counts, strict=True)]).astype(np.int32)
        flat = np.concatenate(tokens).astype(np.int32)
        inputs = {"tokens": flat, "positions": positions, "rows": np.arange(len(flat), dtype=np.int32), "kv": kv}
        (want,) = run(small, inputs)
        # 1e-4 of the largest logit: the bound of the comparison of dense programs with transformers.
        assert np.abs(runner.step(tokens) - want).max() < 1e-4 * np.abs(want).max()
        apart = max(apart, float(np.abs(dense.step(tokens) - want).max() / np.abs(want).max()))
        at = [a + n for a, n in zip(at, counts, strict=True)]
    assert apart > 1e-3  # what is left out shows


def test_every_lowered_selector_was_in_a_program() -> None:
    if USED:
        assert set(selectors()) <= USED | LEARNED
