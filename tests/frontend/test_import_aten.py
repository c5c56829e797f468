"""The importer on small modules: values against torch, refusals with op, module path and source line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fretsaw.frontend.capture import capture, trace
from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.frontend.import_aten import import_program
from fretsaw.ir import Const, Graph, run
from fretsaw.ir.errors import CaptureError
from tests.families import save


class Calls(nn.Module):
    """Applies a function to [B, S, 8] features made from the inputs."""

    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        wave = torch.arange(8) * 0.37 + 0.1
        return self.fn(torch.sin(input_ids[..., None] * wave) + positions[..., None] * 0.01)


def imported(fn: Callable[[Tensor], Tensor]) -> tuple[Graph, Calls]:
    module = Calls(fn)
    program = trace(module, 64)
    consts = {
        p: Const.of(value.detach().numpy())
        for p, n in program.graph_signature.inputs_to_lifted_tensor_constants.items()
        if isinstance(value := program.constants[n], Tensor)
    }
    return import_program(program, consts, "test", (8, 64), "out"), module


def scatter_in_place(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out.scatter_(2, x.topk(3).indices, 1)
    return out * x


def fill_pieces(x: Tensor) -> Tensor:
    out = x.new_empty(*x.shape[:2], 12)
    out[..., :4] = x[..., 4:]
    out[..., 4:] = x
    return out


def heads(x: Tensor) -> Tensor:
    y = x.view(*x.shape[:2], 2, 4).transpose(1, 2)
    y = nn.functional.scaled_dot_product_attention(y, y, y, is_causal=True)
    return y.transpose(1, 2).reshape(*x.shape[:2], -1)


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "scalars": lambda x: (2 - x) / 3 + x * True - 1,
    "powers": lambda x: x.abs().pow(0.5) + (x.abs() + 1).pow(-0.5) + x**3 + (x + 9) ** -1,
    "slices": lambda x: torch.cat([x[..., -3:], x[..., 1:7:2], x[..., :-6]], -1),
    "last token": lambda x: x[:, -1],
    "chunks": lambda x: torch.stack([p * i for i, p in enumerate(x.chunk(4, -1))], dim=1).sum((1, 3)),
    "split": lambda x: torch.split(x, [3, 5], dim=-1)[1],
    "unbind": lambda x: torch.cat([t * 2 for t in x.view(*x.shape[:2], 4, 2).unbind(-1)], -1),
    "reductions": lambda x: x.mean((-1, -2), keepdim=True) + x.amax(-1, keepdim=True) + x.sum(-1, keepdim=True),
    "softmax": lambda x: x.softmax(-1).cumsum(-1),
    "compare": lambda x: torch.where(x > 0.1, x, -x),
    "masked": lambda x: x.masked_fill(~(x > 0), 7.0),
    "clamp": lambda x: x.clamp(-0.2, 0.3) + x.clamp(max=0.1) + torch.relu(x),
    "casts": lambda x: (x > 0).to(torch.int64).float() + x.double().float(),
    "layer norm": lambda x: nn.functional.layer_norm(x, (8,)),
    "gelu": lambda x: nn.functional.gelu(x) + nn.functional.gelu(x, approximate="tanh"),
    "matmul": lambda x: x @ x.transpose(-1, -2),
    "scatter in place": scatter_in_place,
    "filled buffer": fill_pieces,
    "attention": heads,
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_torch_values(name: str) -> None:
    graph, module = imported(CASES[name])
    for batch, length in ((1, 1), (3, 7)):
        ids = np.random.default_rng(5).integers(1, 50, (batch, length))  # zero would make ties in top-k
        positions = np.broadcast_to(np.arange(length), ids.shape).copy()
        (ours,) = run(graph, {"input_ids": ids, "positions": positions})
        want = module(torch.from_numpy(ids), torch.from_numpy(positions)).numpy()
        assert ours.dtype == want.dtype and ours.shape == want.shape
        np.testing.assert_allclose(ours, want, rtol=2e-5, atol=2e-6)


def write_into_view(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[..., :3].add_(1)
    return out + x


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: nn.functional.mish(x), "aten.mish.default: there is no import rule"),
        (lambda x: torch.add(x, x, alpha=3), "aten.add.Tensor: argument alpha is not supported"),
        (lambda x: torch.topk(x, 2, largest=False).values, "aten.topk.default: only the largest"),
        (write_into_view, "an update in place of memory that others may see"),
        (lambda x: x.to(torch.complex64).real, "aten."),
    ],
)
def test_refusals_name_op_and_source(fn: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(CaptureError) as caught:
        imported(fn)
    assert message in caught.value.what
    assert re.search(r"test_import_aten\.py:\d+", caught.value.where)


def test_an_unsupported_op_names_module_path_and_source_line(tmp_path: Path) -> None:
    save("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "mish"}))
    with pytest.raises(CaptureError) as caught:
        capture(load_checkpoint(tmp_path))
    assert caught.value.what == "aten.mish.default: there is no import rule for this op"
    assert re.fullmatch(r"model\.layers\.0\.mlp\.act_fn   \(activations\.py:\d+\)", caught.value.where)


def test_a_model_that_cannot_be_traced_says_where() -> None:
    def branch(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    with pytest.raises(CaptureError, match="torch.export cannot trace the model") as caught:
        imported(branch)
    assert "test_import_aten.py:" in caught.value.where
