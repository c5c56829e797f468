"""Compiled programs over weights in codes against transformers with the numbers that the codes mean."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from fretsaw.backends.program.plan.weights import TensorPool
from fretsaw.backends.tvm.build import build
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.ir.errors import LoweringError
from fretsaw.ir.quantized import coded
from fretsaw.passes.quantize.grid import search
from fretsaw.passes.quantize.quantize_weights import quantize_weights
from tests import families
from tests.backends.tvm.conftest import Packed
from tests.backends.tvm.paged import PagedRunner

V3 = "llvm-x86-64-v3"
OPTIONS = TvmOptions(cpus=("x86-64-v3",))


def rounded(model: PreTrainedModel, bits: int, head_bits: int, group: int) -> PreTrainedModel:
    """A copy whose projections hold what their codes mean; rows are coded one by one, so merges do not matter."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, torch.nn.Linear) and module.weight.shape[0] > 8:  # no router
            own = head_bits if module is copied.get_output_embeddings() else bits
            w = module.weight.detach().numpy()
            groups = w.reshape(w.shape[0], -1, group)
            grid = search(groups, own)
            with torch.no_grad():
                module.weight.copy_(torch.from_numpy(grid.values(grid.codes(groups, own)).reshape(w.shape)))
    return copied


@pytest.mark.parametrize(
    ("name", "format"),
    [("llama", "u4_g16"), ("gemma3", "u8_g16"), ("gpt_neox", "u4_g8"), ("phi3", "u2_g16"), ("olmoe", "u4_g16")],
)
def test_logits_equal_transformers(name: str, format: str, packed: Packed) -> None:
    graph, model = packed(name)
    bits, group = int(format[1]), int(format[4:])
    asked = quantize_weights.configured({"format": format, "head": f"u8_g{group}"})
    outcome = asked.run(graph)
    routers = graph.count("router")  # a router is an nn.Linear in few families, and stays exact
    assert len(outcome.hits) == graph.count("linear") - routers
    program = build(outcome.graph, OPTIONS)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, 90)
    want = families.reference(rounded(model, bits, 8, group), torch.tensor(ids[None])).numpy()[0]
    whole = PagedRunner(program, V3).step([ids.tolist()])
    assert np.abs(whole - want).max() < 1e-4 * np.abs(want).max()
    exact = families.reference(model, torch.tensor(ids[None])).numpy()[0]
    assert np.abs(whole - exact).max() > 1e-3 * np.abs(exact).max()  # it did round
    single = PagedRunner(program, V3, seed=1)
    one_by_one = np.concatenate([single.step([[int(t)]]) for t in ids[:20]])
    np.testing.assert_array_equal(one_by_one, whole[:20])


def test_the_artifact_holds_codes(packed: Packed) -> None:
    graph, _ = packed("llama")
    plain = build(graph, OPTIONS)
    program = build(quantize_weights.configured({"format": "u4_g16", "head": "u4_g16"}).run(graph).graph, OPTIONS)
    matrices = [t for t in program.tensors if t.type.dtype == "i32"]
    rest = [t for t in program.tensors if t not in matrices]
    assert len(matrices) == graph.count("linear")
    assert [t.name for t in rest if len(t.type.shape) > 1] == ["model.embed_tokens.weight"]  # not tied: stays
    # 4 bits and 32 for each 16: 6 of 32, and rows up to a whole panel.
    vectors = sum(t.nbytes for t in rest)
    assert program.memory["weights_bytes"] - vectors < 0.22 * (plain.memory["weights_bytes"] - vectors)
    for tensor in matrices:
        assert tensor.make().nbytes == tensor.nbytes


def test_one_kernel_reads_one_format(packed: Packed) -> None:
    graph, _ = packed("llama")
    after = quantize_weights.configured({"format": "u4_g16"}).run(graph).graph
    changed = [(graph.consts[v], c) for v, c in after.consts.items() if coded(c) is not None]
    (plain, codes), pool = changed[0], TensorPool("f32")
    assert pool.storage([plain, plain]) == "f32" and pool.storage([codes]) in ("u4_g16", "u8_g32")
    with pytest.raises(LoweringError, match="weights that one kernel reads are stored as .* and as f32"):
        pool.storage([codes, plain])
