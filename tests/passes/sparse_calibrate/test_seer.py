"""Training a gate: pools and scores against the ops that run it, and a compile with what was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fretsaw.ir.errors import PassError
from fretsaw.ir.ops.rope import rotate
from fretsaw.passes.evidence.feeds import Sequence
from fretsaw.passes.sparse.calibrate.survey import survey
from fretsaw.passes.sparse.methods.seer_attention import SeerAttention
from fretsaw.tools.sparse.seer import Pooled, Trained, _turn, collect, loss_of, save, scores, train, train_gates
from tests.passes.sparse_calibrate.sharp import CALIB, packed

TEXT = Sequence("s", np.array(CALIB[:640]), "t", 0)


@pytest.fixture(scope="module")
def pooled() -> dict[int, Pooled]:
    return collect(packed(), TEXT)


def test_targets_are_block_maxima_that_sum_to_one(pooled: dict[int, Pooled]) -> None:
    found = survey(packed(), (), TEXT, 0)
    for n, got in pooled.items():
        assert got.target.shape == (4, 10, 10) and np.allclose(got.target.sum(axis=2), 1, atol=1e-5)
        assert not np.triu(got.target, 1).any()
        # a block without mass has no maximum either
        assert (got.target[found.layers[n].block_mass < 1e-30] < 1e-20).all()


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_turning_is_the_reference_rotation(layout: str) -> None:
    rng = np.random.default_rng(0)
    x, angle = rng.standard_normal((3, 5, 8)).astype(np.float32), rng.standard_normal((5, 4)).astype(np.float32)
    got = _turn(torch.from_numpy(x), torch.from_numpy(np.cos(angle)), torch.from_numpy(np.sin(angle)), layout)
    assert np.allclose(got.numpy(), rotate(x, np.cos(angle), np.sin(angle), layout), atol=1e-6)


def test_the_gate_that_is_trained_is_the_gate_that_runs(pooled: dict[int, Pooled], tmp_path: Path) -> None:
    """Blocks that the compiled method lists are those whose trained score is over the threshold, or forced."""
    rng = np.random.default_rng(1)
    wq, wk = rng.standard_normal((4, 8, 8)).astype(np.float32), rng.standard_normal((2, 24, 8)).astype(np.float32)
    path = tmp_path / "gate.safetensors"
    save(path, {n: Trained(wq, wk, 0, 0) for n in (0, 1)})
    options = SeerAttention(gate=str(path), threshold=0.1, tail=False, dense_until=0)
    found = survey(packed(), (options,), TEXT, 0)
    for n in (0, 1):
        gate = scores(pooled[n], torch.from_numpy(wq), torch.from_numpy(wk)).exp().numpy()
        assert (np.abs(gate - 0.1) > 1e-4).all(), "no score may lie on the threshold"
        want = np.tril(gate > 0.1) | np.eye(10, dtype=bool) | (np.arange(10) == 0)
        want = want & np.tri(10, dtype=bool)
        losses = found.layers[n].losses[0]
        assert losses is not None
        assert [x.density for x in losses] == pytest.approx([want[h].sum() / 55 for h in range(4)])


def test_training_comes_closer_to_the_target(pooled: dict[int, Pooled]) -> None:
    got = train([pooled[0]], pooled[0], 120)
    assert got.after < 0.8 * got.before
    assert float(loss_of(pooled[0], torch.from_numpy(got.wq), torch.from_numpy(got.wk))) == pytest.approx(got.after)
    again = train([pooled[0]], pooled[0], 120)
    assert np.array_equal(got.wq, again.wq) and np.array_equal(got.wk, again.wk)


def test_a_perfect_gate_has_no_loss(pooled: dict[int, Pooled]) -> None:
    one = pooled[0]
    wq, wk = torch.randn(4, 8, 8), torch.randn(2, 24, 8)
    perfect = Pooled(one.q, one.k, scores(one, wq, wk).exp().numpy(), one.cos, one.sin, one.layout)
    assert float(loss_of(perfect, wq, wk)) == pytest.approx(0, abs=1e-5)
    assert float(loss_of(perfect, wq, -wk)) > 0.1


def test_gates_of_all_layers_and_short_texts() -> None:
    notes: list[str] = []
    gates = train_gates(packed(), np.array(CALIB), 256, 2, 20, notes.append)
    assert sorted(gates) == [0, 1] and all(g.after <= g.before for g in gates.values()) and "piece 1, layer 1" in notes
    with pytest.raises(PassError, match="3 pieces of 256 tokens from a text of 700: a gate needs 2 pieces of 256"):
        train_gates(packed(), np.array(CALIB), 256, 3, 20, notes.append)
