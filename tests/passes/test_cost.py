"""FLOPs, bytes and parameters: every op declares them, formulas by hand agree, passes show what they save."""

from __future__ import annotations

import numpy as np
import pytest

from fretsaw.ir import TensorType, catalogue, make_node, parse
from fretsaw.ir.node import Value
from fretsaw.ir.ops.attention import seen_pairs
from fretsaw.ir.types import HandleType, ValueType
from fretsaw.passes.kit.cost import cost, node_flops, sequence_dims
from fretsaw.passes.pipeline import run_pipeline
from tests.passes.llama_text import FFN, HEADS, KV_HEADS, SIZE, VOCAB, WIDTH, llama


def flops(op: str, *types: ValueType, **attrs: object) -> int:
    operands = [Value(f"v{i}", t) for i, t in enumerate(types)]
    return node_flops(make_node(op, operands, attrs, ["y"]), {})  # type: ignore[arg-type]


def f32(*shape: int) -> TensorType:
    return TensorType("f32", shape)


def i64(*shape: int) -> TensorType:
    return TensorType("i64", shape)


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_every_op_says_what_it_costs(name: str) -> None:
    assert catalogue()[name].flops is not None


@pytest.mark.parametrize("name", sorted(n for n, op in catalogue().items() if op.elementwise))
def test_elementwise_ops_cost_one_per_result(name: str) -> None:
    op = catalogue()[name]
    result, count = f32(3, 5), op.flops
    assert count is not None and count([f32(3, 1), f32(5)], [result], {}) == 15


@pytest.mark.parametrize(
    ("got", "by_hand"),
    [
        (flops("linear", f32(2, 3, 5), f32(7, 5)), 2 * 2 * 3 * 5 * 7),
        (flops("linear", f32(2, 3, 5), f32(7, 5), f32(7)), 2 * 2 * 3 * 5 * 7 + 2 * 3 * 7),
        (flops("matmul", f32(4, 2, 3), f32(1, 3, 5)), 2 * 4 * 2 * 3 * 5),
        (flops("embedding", i64(9), f32(100, 16)), 0),
        (flops("rms_norm", f32(6, 8), f32(8), eps=1e-5), 4 * 48),
        (flops("layer_norm", f32(6, 8), f32(8), f32(8), eps=1e-5), 7 * 48),
        (flops("softmax", f32(6, 8), axis=1), 4 * 48),
        (flops("mean", f32(6, 8), axis=1), 48),
        (flops("topk", f32(6, 8), k=2), 48),
        # 6 tokens, 4 angles each; 8 of 10 features of 2 heads turn
        (flops("rope", f32(6, 2, 10), i64(6), f32(4)), 3 * 6 * 4 + 3 * 6 * 2 * 8),
        (flops("attention", f32(2, 6, 4, 8), f32(2, 6, 2, 8), f32(2, 6, 2, 5), scale=1.0),
         2 * 4 * (6 * 7 // 2) * (2 * 8 + 2 * 5 + 5)),
        (flops("attention", f32(1, 6, 4, 8), f32(1, 6, 4, 8), f32(1, 6, 4, 8), scale=1.0, causal=False),
         4 * 36 * (2 * 16 + 5)),
        (flops("attention", f32(1, 6, 4, 8), f32(1, 6, 4, 8), f32(1, 6, 4, 8), scale=1.0, window=2, softcap=9.0),
         4 * (1 + 2 * 5) * (2 * 16 + 5 + 3)),
        (flops("cached_attention", HandleType("kv_cache"), f32(6, 4, 8), layer=0, scale=1.0, value_size=8),
         4 * 21 * (2 * 16 + 5)),
        (flops("router", f32(6, 8), k=2), 5 * 48),
        # 6 tokens, 2 of 5 experts: gate and up, silu and product, down, weighted sum
        (flops("experts", f32(6, 8), i64(6, 2), f32(6, 2), f32(5, 14, 8), f32(5, 8, 7)),
         6 * 2 * (2 * 8 * 14 + 2 * 7 + 2 * 7 * 8 + 2 * 8)),
        (flops("reshape", f32(6, 8), shape=(48,)), 0),
        (flops("add", f32(6, 8), f32(8)), 48),
    ],
)  # fmt: skip
def test_formulas_by_hand(got: int, by_hand: int) -> None:
    assert got == by_hand


@pytest.mark.parametrize("window", [0, 1, 3, 50])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (3, 9), (1, 5)])
def test_seen_pairs_are_those_of_the_mask(queries: int, keys: int, causal: bool, window: int) -> None:
    from fretsaw.ir.ops.attention import _seen

    attrs = {"causal": causal, "window": window}
    assert seen_pairs(queries, keys, attrs) == _seen(np.arange(keys - queries, keys), keys, attrs).sum()


def test_a_llama_by_hand() -> None:
    tokens, layers = 100, 2
    graph = run_pipeline(parse(llama(layers), seed=0), ("canonical",)).graph
    found = cost(graph, tokens)
    qkv = (HEADS + 2 * KV_HEADS) * SIZE * WIDTH
    layer = qkv + WIDTH * HEADS * SIZE + 3 * WIDTH * FFN
    products = 2 * tokens * (layers * layer + VOCAB * WIDTH)
    attention = layers * HEADS * (tokens * (tokens + 1) // 2) * (4 * SIZE + 5)
    norms = (2 * layers + 1) * 4 * tokens * WIDTH
    rope = layers * ((HEADS + KV_HEADS) * tokens * SIZE * 3 + 2 * 3 * tokens * SIZE // 2)
    rest = layers * (2 * tokens * FFN + 2 * tokens * WIDTH)  # silu, product, two residual sums
    assert found.flops == products + attention + norms + rope + rest
    weights = layers * (layer + 2 * WIDTH) + VOCAB * WIDTH + WIDTH + SIZE // 2  # and the frequencies
    assert found.parameters == weights and found.weight_bytes == 4 * weights


def test_cost_is_a_polynomial_in_the_tokens() -> None:
    """Attention makes it quadratic: third differences vanish."""
    graph = parse(llama(1), seed=0)
    values = [cost(graph, n).flops for n in (10, 20, 30, 40, 50)]
    assert list(np.diff(values, 3)) == [0, 0] and np.diff(values, 2).min() > 0
    written = [cost(graph, n).activation_bytes for n in (10, 20, 30)]
    assert written[2] - written[1] == written[1] - written[0] > 0


def test_a_short_context_does_not_make_packing_look_dear() -> None:
    """Both sides are counted over 512 tokens; packing moves no arithmetic to speak of."""
    graph = parse(llama(2).replace("dim S in [1, 4096]", "dim S in [1, 128]"), seed=0)
    assert sequence_dims(graph, 512)["S"] == 128
    entry = next(e for e in run_pipeline(graph).ledger if e.name == "pack_tokens")
    assert entry.cost_before is not None and entry.cost_after is not None
    assert abs(entry.cost_after.flops / entry.cost_before.flops - 1) < 0.01


def test_the_ledger_shows_what_a_pass_saves() -> None:
    result = run_pipeline(parse(llama(2), seed=0))
    by_name = {e.name: e for e in result.ledger if e.hit}
    norm = by_name["raise_rms_norm"]
    assert norm.cost_before is not None and norm.cost_after is not None
    saved = norm.cost_before - norm.cost_after
    assert saved.activation_bytes > 0 and saved.flops >= 0
    for a, b in zip(result.ledger, result.ledger[1:], strict=False):
        assert a.cost_after == b.cost_before
    first = result.ledger[0].to_json()["cost_before"]
    assert first == cost(parse(llama(2), seed=0)).to_json()
