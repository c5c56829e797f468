"""Compiled programs against transformers: every position, chunks, two sequences at once, one token at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from fretsaw.backends.tvm.build import Program, build
from fretsaw.backends.tvm.kv_storage import KvType
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.ir.errors import LoweringError
from tests import families
from tests.backends.tvm.conftest import Packed
from tests.backends.tvm.paged import PagedRunner
from tests.storage import stored

V3 = "llvm-x86-64-v3"
COMPILED = ("llama", "llama_llama3", "llama_yarn", "qwen3", "gemma3", "phi3", "gpt_neox", "mixtral", "qwen3_moe",
            "olmoe", "gpt_oss")  # fmt: skip
LENGTH = 150  # over two pages of 64, over every tiny model's window


def options() -> TvmOptions:
    return TvmOptions(cpus=("x86-64-v3",))


@pytest.fixture(scope="module")
def plain(packed: Packed) -> Callable[[str], Program]:
    """``plain(family)`` -> its program with everything in f32."""
    return cache(lambda name: build(packed(name)[0], options()))


@pytest.mark.parametrize("name", COMPILED)
def test_logits_equal_transformers(name: str, packed: Packed, plain: Callable[[str], Program]) -> None:
    _, model = packed(name)
    program = plain(name)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (2, LENGTH))
    want = families.reference(model, torch.tensor(ids)).numpy()

    pair = PagedRunner(program, V3, sequences=2)
    steps = [(37, 5), (38, 100), (150, 150)]  # ends of both sequences after each step: long, decode-like, long
    got: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    at = (0, 0)
    for ends in steps:
        out = pair.step([ids[0, at[0] : ends[0]].tolist(), ids[1, at[1] : ends[1]].tolist()])
        first = ends[0] - at[0]
        got[0].append(out[:first])
        got[1].append(out[first:])
        at = ends
    logits = [np.concatenate(g) for g in got]
    # 1e-4 of the largest logit: the bound of the frontend's own comparison, over a dozen layers of f32 sums.
    for mine, theirs in zip(logits, want, strict=True):
        assert np.abs(mine - theirs).max() < 1e-4 * np.abs(want).max()

    single = PagedRunner(program, V3, seed=1)
    one_by_one = np.concatenate([single.step([[int(t)]]) for t in ids[0, :80]])
    np.testing.assert_array_equal(one_by_one, logits[0][:80])  # chunking does not show, bit for bit


def test_the_comparison_can_fail(packed: Packed, plain: Callable[[str], Program]) -> None:
    """One changed token moves the logits far beyond the bound."""
    _, model = packed("llama")
    ids = np.arange(1, 40)
    runner = PagedRunner(plain("llama"), V3)
    wrong = ids.copy()
    wrong[3] += 1
    got = runner.step([wrong.tolist()])
    want = families.reference(model, torch.tensor(ids[None])).numpy()[0]
    assert np.abs(got - want)[3:].max() > 1e-2 * np.abs(want).max()


@pytest.mark.parametrize(("weights", "bound"), [("f16", 2.0**-9), ("bf16", 2.0**-6)])
def test_narrow_weights_stay_near(weights: str, bound: float, packed: Packed, plain: Callable[[str], Program]) -> None:
    """Weights rounded once to half precision: relative error a few units of the format's own spacing."""
    graph, model = packed("llama")
    ids = np.arange(1, 60)
    want = families.reference(model, torch.tensor(ids[None])).numpy()[0]
    program = build(stored(graph, weights=weights), options())
    got = PagedRunner(program, V3).step([ids.tolist()])
    error = np.abs(got - want).max() / np.abs(want).max()
    assert 1e-6 < error < bound * 4  # it did round, and no more than that
    assert program.memory["weights_bytes"] < 0.6 * plain("llama").memory["weights_bytes"]


def test_narrow_weights_give_the_bits_of_their_numbers_in_f32(packed: Packed) -> None:
    """Kernels widen bf16 exactly: what is kept in half the bytes computes the same."""
    narrow = stored(packed("llama")[0], weights="bf16")
    programs = [build(graph, options()) for graph in (narrow, stored(narrow, weights="f32"))]
    got, want = (PagedRunner(program, V3).step([list(range(1, 60))]) for program in programs)
    np.testing.assert_array_equal(got, want)
    assert programs[0].memory["weights_bytes"] < 0.6 * programs[1].memory["weights_bytes"]


@pytest.mark.parametrize(("name", "kv"), [("llama", "f16"), ("gemma3", "int8"), ("gpt_oss", "int8"), ("olmoe", "f16")])
def test_narrow_caches_stay_near_and_chunks_do_not_show(name: str, kv: KvType, packed: Packed) -> None:
    """Keys and values are rounded once: near transformers, and equal bits for any cut of the prompt."""
    graph, model = packed(name)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, LENGTH)
    want = families.reference(model, torch.tensor(ids[None])).numpy()[0]
    program = build(stored(graph, kv=kv), options())
    whole = PagedRunner(program, V3).step([ids.tolist()])
    # The median of the positions: where a router's choice is close, rounding may turn it, which is no small error.
    error = np.median(np.abs(whole - want).max(1)) / np.abs(want).max()
    assert 1e-5 < error < {"f16": 2.0**-10, "int8": 2.0**-6}[kv]  # it did round, and no more than that
    chunked = PagedRunner(program, V3, sequences=2, seed=1)
    cuts = [0, 1, 2, 64, 65, 129, LENGTH]
    parts = [chunked.step([ids[a:b].tolist(), ids[:2].tolist()])[: b - a] for a, b in zip(cuts, cuts[1:], strict=False)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    layers, kv_heads, key, value = (int(program.kv[n]) for n in ("layers", "kv_heads", "key_size", "value_size"))
    heads, size = layers * kv_heads, key + value
    assert program.kv["dtype"] == kv
    assert program.memory["kv_bytes_per_token"] == heads * (2 * size if kv == "f16" else size + 2 * 4)


def test_rows_choose_logits(plain: Callable[[str], Program]) -> None:
    program = plain("llama")
    ids = list(range(1, 30))
    every = PagedRunner(program, V3).step([ids])
    some = PagedRunner(program, V3).step([ids], rows=[28, 3])
    np.testing.assert_array_equal(some, every[[28, 3]])
    chunked = PagedRunner(program, V3)
    assert chunked.step([ids[:11]], rows=[]).shape == (0, every.shape[1])  # a chunk that wants no logits
    np.testing.assert_array_equal(chunked.step([ids[11:]], rows=[17]), every[[28]])


def test_both_variants_share_weights_and_bytes_repeat(packed: Packed, plain: Callable[[str], Program]) -> None:
    first, second = build(packed("llama")[0]), plain("llama")
    assert list(first.variants) == ["llvm-x86-64-v4", "llvm-x86-64-v3"]
    assert first.variants[V3] == second.variants[V3]
    assert [t.name for t in first.tensors] == [t.name for t in second.tensors]
    assert len(first.variants["llvm-x86-64-v4"][0]) > 1000


@pytest.mark.parametrize("name", ["deepseek_v3"])
def test_what_cannot_be_lowered_is_refused_by_name(name: str, packed: Packed) -> None:
    graph, _ = packed(name)
    with pytest.raises(LoweringError) as caught:
        build(graph)
    text = str(caught.value)
    assert "tvm backend" in text and "model.layers" in text
