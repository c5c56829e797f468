"""Compiled encoders against transformers: ragged batches, and the same bits alone, in any batch, with any threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedModel

from fretsaw.backends.tvm.build import Program, build
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.backends.tvm.plan import plan
from fretsaw.frontend.capture import capture
from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.ir import Graph, to_text
from fretsaw.ir.errors import LoweringError
from fretsaw.passes.api import apply
from fretsaw.passes.packed.share_uniform_rows import share_uniform_rows
from fretsaw.passes.pipeline import run_pipeline
from tests.backends.kernels.kernel_run import threads
from tests.backends.tvm.encoder import EncoderRunner
from tests.families import save
from tests.passes.kit import read
from tests.passes.test_pack_encoders import LONGEST, ids_of, padded_reference, pooled, write_sentence_files
from tests.passes.test_pack_segments import AFTER, packed
from tests.storage import stored

V3 = "llvm-x86-64-v3"
RAGGED = [(1,), (LONGEST,), (13, 1, LONGEST, 40, 0), (0, 0), (2,) * 60]
Built = Callable[[str, str], tuple[Program, Graph, PreTrainedModel]]


def options() -> TvmOptions:
    return TvmOptions(cpus=("x86-64-v3",))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """``built(family, pooling or "")`` -> (program, packed graph, the transformers model)."""

    @cache
    def make(name: str, kind: str) -> tuple[Program, Graph, PreTrainedModel]:
        folder: Path = tmp_path_factory.mktemp(name) / name
        model = save(name, folder)
        if kind:
            write_sentence_files(folder, kind)
        inner = getattr(model, "bert", model) if name == "bert_masked_lm" else model
        inner.set_attn_implementation("eager")
        graph = run_pipeline(capture(load_checkpoint(folder))).graph
        return build(graph, options()), graph, inner

    return make


@pytest.mark.parametrize("name", ["bert", "bert_masked_lm", "modernbert"])
def test_hidden_states(name: str, built: Built) -> None:
    program, _, model = built(name, "")
    encode = EncoderRunner(program, V3)
    for lengths in RAGGED:
        sequences = ids_of(lengths)
        got = encode(sequences)
        full = [s for s in sequences if len(s)]
        want = np.concatenate(padded_reference(model, full)) if full else np.zeros((0, 48), np.float32)
        assert got.shape == want.shape
        # 1e-4 of the largest value: the bound of the decoders' comparison.
        assert not want.size or np.abs(got - want).max() < 1e-4 * np.abs(want).max()
        ends = np.cumsum([0, *lengths])
        for one, a, b in zip(sequences, ends, ends[1:], strict=False):
            np.testing.assert_array_equal(encode([one]), got[a:b])
        with threads(1):
            np.testing.assert_array_equal(encode(sequences), got)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("bert", "mean"), ("bert", "first"), ("modernbert", "mean"), ("modernbert", "last"), ("modernbert", "max")],
)
def test_embeddings(name: str, kind: str, built: Built) -> None:
    program, _, model = built(name, kind)
    encode = EncoderRunner(program, V3)
    sequences = ids_of((13, 1, LONGEST, 40))
    want = np.stack([pooled(h, kind) for h in padded_reference(model, sequences)])
    got = encode([*sequences, []])
    assert (1 - (got[:-1] * want).sum(1)).max() < 1e-5  # cosine distance
    assert (got[-1] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(got[:-1], axis=1), 1, rtol=1e-6)
    for i, one in enumerate(sequences):
        np.testing.assert_array_equal(encode([one])[0], got[i])


def test_the_comparison_can_fail(built: Built) -> None:
    """One changed token moves the embedding beyond the bound."""
    program, _, model = built("bert", "mean")
    (ids,) = ids_of((40,))
    want = pooled(padded_reference(model, [ids])[0], "mean")
    wrong = ids.copy()
    wrong[3] += 1
    assert 1 - (EncoderRunner(program, V3)([wrong])[0] * want).sum() > 1e-4


@pytest.mark.parametrize(("weights", "bound"), [("f16", 2.0**-9), ("bf16", 2.0**-6)])
def test_narrow_weights_stay_near(weights: str, bound: float, built: Built) -> None:
    full, graph, _ = built("modernbert", "mean")
    narrow = build(stored(graph, weights=weights), options())
    sequences = ids_of((30, 7))
    got, want = EncoderRunner(narrow, V3)(sequences), EncoderRunner(full, V3)(sequences)
    assert 1e-6 < np.abs(got - want).max() < bound * 4
    assert narrow.memory["weights_bytes"] < 0.6 * full.memory["weights_bytes"]


def test_launches(built: Built) -> None:
    """One projection and one attention a layer, a table without panels, no cache."""
    program, graph, _ = built("modernbert", "mean")
    kinds = [launch.spec.name.split("_")[0] for launch in program.plan.launches]
    assert kinds.count("varlen") == 3 and kinds.count("angles") == 2
    assert kinds.count("linear") == 12 and kinds[-2:] == ["pool", "unit"]
    assert program.kv == {} and program.memory["kv_bytes_per_token"] == 0
    assert program.program == {"entry": "encode", "chunk_tokens": 512}
    table = next(t for t in program.tensors if t.name == "embeddings.tok_embeddings.weight")
    assert table.type.shape == (320, 48)
    assert graph.phase == "packed"


def test_sequence_wise_tails_are_compiled() -> None:
    """A projection, an activation and a sum over pooled rows."""
    tail = "%d: f32[B, 8] = linear(%m, %w)\n %t2: f32[B, 8] = tanh(%d)\n %out: f32[B, 8] = add(%t2, %m)"
    graph, _ = apply(share_uniform_rows, read(AFTER.replace("%out: f32[B, 8] = l2_norm(%m)", tail)))
    sequences = [np.arange(1, 9), np.arange(3)]
    got = EncoderRunner(build(graph, options()), V3)(sequences)
    np.testing.assert_allclose(got, packed(graph, sequences), atol=2e-6)


def test_what_has_no_kernel_is_refused() -> None:
    graph, _ = apply(share_uniform_rows, read(AFTER))
    text = to_text(graph).replace(
        "%h: f32[T, 8] = reshape(%o)", "%n: f32[T, 2, 4] = l2_norm(%o)\n  %h: f32[T, 8] = reshape(%n)"
    )
    with pytest.raises(LoweringError, match=r"l2_norm over f32\[T, 2, 4\] has no kernel"):
        plan(read(text), options())
