"""The sampler's distribution against transformers' own logits processors, in their order."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.runtime_py.conftest import build_dir

pytestmark = pytest.mark.native
CASES = 300


def oracle(case: dict[str, object]) -> np.ndarray:
    processors = LogitsProcessorList()
    if case["repetition_penalty"] != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(case["repetition_penalty"]))
    processors.append(TemperatureLogitsWarper(case["temperature"]))
    if case["top_k"]:
        processors.append(TopKLogitsWarper(case["top_k"]))
    if case["top_p"] < 1.0:  # type: ignore[operator]
        processors.append(TopPLogitsWarper(case["top_p"]))
    if case["min_p"]:
        processors.append(MinPLogitsWarper(case["min_p"]))
    # f32 logits, f64 arithmetic: a token on the edge of top-p must not depend on the sum's rounding.
    scores = torch.tensor(case["logits"], dtype=torch.float32).double()[None]
    seen = torch.tensor(case["seen"], dtype=torch.int64)[None]
    return torch.softmax(processors(seen, scores), dim=-1)[0].numpy()


def make_case(random: np.random.Generator) -> dict[str, object]:
    vocab = int(random.choice([5, 40, 700, 3000]))
    logits = random.normal(0, float(random.choice([0.5, 3, 8])), vocab).astype(np.float32)
    return {
        "logits": [float(x) for x in logits],
        "seen": [int(i) for i in random.integers(0, vocab, 6)],
        "temperature": float(random.choice([0.3, 0.7, 1.0, 1.7])),
        "top_k": int(random.choice([0, 1, 3, 50, 10000])),
        "top_p": float(random.choice([0.05, 0.5, 0.9, 0.999, 1.0])),
        "min_p": float(random.choice([0, 0.02, 0.3])),
        "repetition_penalty": float(random.choice([1.0, 1.25, 0.75])),
    }


def test_distribution_is_that_of_transformers() -> None:
    tool = build_dir() / "fretsaw-sampler-tool"
    if not tool.is_file():
        pytest.skip(f"{tool} is not built")
    random = np.random.default_rng(3)
    cases = [make_case(random) for _ in range(CASES)]
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run([tool], input=lines, capture_output=True, text=True, check=True, timeout=120)
    narrowed = 0
    for case, line in zip(cases, done.stdout.splitlines(), strict=True):
        out = json.loads(line)
        want = oracle(case)
        shown = {k: v for k, v in case.items() if k != "logits"}
        assert out["tokens"] == list(np.flatnonzero(want)), shown
        # The penalty is applied to f32 logits: 2^-24 of a logit of up to 40, over the temperature 0.3.
        np.testing.assert_allclose(out["probabilities"], want[out["tokens"]], rtol=1e-5, err_msg=str(shown))
        narrowed += len(out["tokens"]) < len(want)
    assert narrowed > CASES // 2
