"""Every op of the catalogue: its example reads back, its reference agrees with its shape rule and with an oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fretsaw.ir import catalogue, get_op
from fretsaw.ir.document import rewrite
from fretsaw.ir.lexer import Cursor

OPS = sorted(catalogue())


@pytest.mark.parametrize("name", OPS)
def test_examples_are_in_the_text_form(name: str) -> None:
    op = get_op(name)
    assert op.doc.endswith(".")
    cursor = Cursor(op.example, 1)
    assert cursor.name() == name
    cursor.expect("(")
    count = 0
    while not cursor.accept(")"):
        count += 1
        cursor.accept(",")
        cursor.expect("%")
        cursor.name()
    assert op.required_slots <= count and (op.variadic or count <= len(op.slots))
    attrs = cursor.attrs()
    assert cursor.done() and set(attrs) <= set(op.attrs)
    assert {n for n, s in op.attrs.items() if s.required} <= set(attrs)


def test_docs_list_every_op(root: Path) -> None:
    text = (root / "docs" / "ir.md").read_text()
    assert rewrite(text) == text, "run python -m fretsaw.ir.document docs/ir.md"


F = torch.nn.functional
x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
t = torch.from_numpy(x)
TORCH = [
    ("softmax", [x], {"axis": 1}, F.softmax(t, 1)),
    ("silu", [x], {}, F.silu(t)),
    ("gelu", [x], {}, F.gelu(t)),
    ("gelu", [x], {"approximate": "tanh"}, F.gelu(t, approximate="tanh")),
    ("rms_norm", [x, x[0]], {"eps": 1e-5}, F.rms_norm(t, (5,), t[0], 1e-5)),
    ("layer_norm", [x, x[0], x[1]], {"eps": 1e-5}, F.layer_norm(t, (5,), t[0], t[1], 1e-5)),
    ("linear", [x, x, x[:, 0]], {}, F.linear(t, t, t[:, 0])),
    ("embedding", [np.array([2, 0]), x], {}, F.embedding(torch.tensor([2, 0]), t)),
    ("topk", [x], {"k": 2}, torch.topk(t, 2)[0]),
    ("erf", [x], {}, torch.erf(t)),
    ("cumsum", [x], {"axis": 0}, torch.cumsum(t, 0)),
    ("clamp", [x], {"min": -0.5, "max": 0.5}, torch.clamp(t, -0.5, 0.5)),
    ("cast", [x], {"dtype": "bf16"}, t.bfloat16().float()),
]  # fmt: skip


@pytest.mark.parametrize(("name", "operands", "attrs", "want"), TORCH, ids=[f"{c[0]}{i}" for i, c in enumerate(TORCH)])
def test_references_agree_with_torch(
    name: str, operands: list[np.ndarray], attrs: dict[str, object], want: torch.Tensor
) -> None:
    got = get_op(name).reference(operands, attrs)[0]
    assert np.abs(got - want.numpy()).max() <= 8 * np.finfo(np.float32).eps * np.abs(want.numpy()).max()


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_agrees_with_torch(window: int, causal: bool) -> None:
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((2, 6, h, 4)).astype(np.float32) for h in (4, 2, 2))
    gap = np.arange(6)[:, None] - np.arange(6)[None]
    seen = (gap >= 0) if causal else np.ones_like(gap, bool)
    if window:
        seen &= np.abs(gap) < window
    tq, tk, tv = (torch.from_numpy(a).transpose(1, 2) for a in (q, k, v))
    want = F.scaled_dot_product_attention(tq, tk, tv, attn_mask=torch.from_numpy(seen), scale=0.3, enable_gqa=True)
    attrs = {"scale": 0.3, "causal": causal, "window": window, "softcap": 0.0}
    got = get_op("attention").reference([q, k, v], attrs)[0]
    assert np.abs(got - want.transpose(1, 2).numpy()).max() <= 32 * np.finfo(np.float32).eps
