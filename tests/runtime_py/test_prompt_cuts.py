"""Artifacts whose prompts may be cut between blocks only, or not at all, through the binding and the command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fretsaw.runtime import Model
from fretsaw.runtime.errors import RuntimeFailure
from tests.runtime_py import tiny_program
from tests.runtime_py.conftest import Tiny

pytestmark = pytest.mark.native
IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3]


def with_rule(tiny: Tiny, **rule: object) -> Path:
    """The tiny artifact with this in the manifest's ``program``."""

    def change(manifest: dict[str, Any], sections: dict[str, bytes]) -> None:
        manifest["program"] |= rule

    return tiny.variation(change)


@pytest.mark.parametrize("chunk", [16, 19, 24])
def test_cuts_between_blocks_lose_no_token(tiny: Tiny, binary: Path, chunk: int) -> None:
    path = with_rule(tiny, chunk_tokens=chunk, chunk_align=tiny_program.PAGE)
    with Model(path, threads=1) as model, model.session(48) as session:
        for first in (0, 1, 7, 8):  # a second prompt starts anywhere in a block
            session.reset()
            got = [session.forward(IDS[a:b]) for a, b in ((0, first), (first, 25)) if b > a]
            np.testing.assert_array_equal(np.concatenate(got), tiny_program.expected_logits(IDS))


def test_a_whole_prompt_must_fit_a_step(tiny: Tiny, binary: Path) -> None:
    path = with_rule(tiny, chunk_tokens=24, whole_prompts=True)
    words = (
        "the prompt has 25 tokens; attention of this artifact reads a prompt in one step, which takes at most 24; "
        "shorten it, or compile with --chunk 25 or more"
    )
    with Model(path, threads=1) as model:
        np.testing.assert_array_equal(model.forward(IDS[:24]), tiny_program.expected_logits(IDS[:24]))
        with pytest.raises(RuntimeFailure) as refused:
            model.forward(IDS)
        assert str(refused.value) == words and refused.value.status == "prompt_too_long"
        (done,) = model.batch([IDS])
        assert done.error is not None and words in str(done.error)
        assert len(list(model.generate(IDS[:20], 10, ignore_eos=True))) == 10  # decoding goes on past the step's size
    ids = ",".join(map(str, IDS))
    ran = subprocess.run([binary, path, "--ids", ids, "--json"], capture_output=True, text=True)
    assert ran.returncode == 10 and json.loads(ran.stdout)["error"]["message"] == words


def test_steps_of_a_batch_hold_two_blocks(tiny: Tiny, binary: Path, tmp_path: Path) -> None:
    path = with_rule(tiny, chunk_tokens=16, chunk_align=tiny_program.PAGE)
    requests, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    requests.write_text(json.dumps({"ids": IDS}) + "\n")
    command = [str(binary), str(path), "--batch", str(requests), "--out", str(out), "--quiet", "--max-batch-tokens"]
    refused = subprocess.run([*command, "15"], capture_output=True, text=True)
    assert refused.returncode == 2 and "reads blocks of 8 tokens, and a step needs at least 16" in refused.stderr
    assert subprocess.run([*command, "16"], capture_output=True).returncode == 0
    wanted = tiny_program.expected_greedy(IDS, 128, 257)
    assert json.loads(out.read_text())["tokens"] == wanted[: len(json.loads(out.read_text())["tokens"])]


@pytest.mark.parametrize("rule", [{"chunk_align": 4}, {"chunk_align": 8, "chunk_tokens": 15}, {"whole_prompts": 1}])
def test_impossible_rules_are_refused(tiny: Tiny, binary: Path, rule: dict[str, object]) -> None:
    with pytest.raises(RuntimeFailure) as refused:
        Model(with_rule(tiny, **rule))
    assert refused.value.status == "corrupt" and "manifest: program" in str(refused.value)
