"""The passkey test: prompts token by token, scores against a reader in closed form, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from fretsaw.ir.errors import UsageError
from fretsaw.tools.passkey import FILLER, Prompts, Trial, ask, cells, summary
from fretsaw.tools.passkey_report import Wanted, passkey_tables, run_passkey
from fretsaw.tools.reporter import Reporter


def encode(text: str) -> list[int]:
    """A token per byte."""
    return list(text.encode())


def decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode()


@pytest.mark.parametrize("depth", [0, 10, 50, 99, 100])
@pytest.mark.parametrize("length", [420, 1000, 5000])
def test_prompts_have_their_length_and_the_key_once_at_its_depth(length: int, depth: float) -> None:
    trial = Prompts(encode).trial(length, depth, 0)
    text, answer = decode(trial.prompt), decode(trial.answer)
    assert len(trial.prompt) + len(trial.answer) == length and answer[0] == " " and len(answer) == 6
    assert text.count(f"The pass key is{answer}. Remember it.") == 1 and text.count(answer.strip()) == 2
    assert text.startswith("There is an important") and text.endswith("What is the pass key? The pass key is")
    start, filler = text.index("about it.\n") + len("about it.\n"), len(FILLER)
    before = text.index(" The pass key is") - start
    whole = text.index("\nWhat is") - start - len(f" The pass key is{answer}. Remember it.{answer} is the pass key.")
    assert whole * depth / 100 - filler - 1 < before <= whole * depth / 100 + 1
    assert depth == 100 or before % filler == 0


def test_keys_differ_by_number_place_and_seed_and_come_again() -> None:
    prompts = Prompts(encode)
    answers = [prompts.trial(n, d, i).answer for n in (500, 600) for d in (0, 50) for i in range(3)]
    assert len(set(answers)) == len(answers)
    assert prompts.trial(500, 0, 0) == Prompts(encode).trial(500, 0, 0)
    assert prompts.trial(500, 0, 0).answer != Prompts(encode, seed=1).trial(500, 0, 0).answer


def test_other_filler_and_start_tokens() -> None:
    trial = Prompts(encode, "abc", [0]).trial(500, 0, 0)
    assert trial.prompt[0] == 0 and "abcabcabc" in decode(trial.prompt)


class Reader:
    """Logits depend on the last token alone: token + 1 is the most likely, unless it is ``blind`` to it."""

    def __init__(self, blind: int = -1) -> None:
        self.seen: list[int] = []
        self.calls: list[int] = []
        self.blind = blind

    def reset(self) -> None:
        self.seen, self.calls = [], []

    def forward(self, ids: Sequence[int], last_only: bool) -> np.ndarray:
        assert last_only
        self.seen += ids
        self.calls.append(len(ids))
        return self.row(self.seen[-1])[None]

    def row(self, last: int) -> np.ndarray:
        wanted = np.float32(-abs(np.arange(10) - last - 1))
        return np.zeros(10, np.float32) if last == self.blind else np.asarray(wanted)


def test_scores_against_direct_sums() -> None:
    reader = Reader()
    outcome = ask(reader, Trial(6, 0, (5, 3), (4, 5, 7, 8)))
    rows = [log_softmax(reader.row(last).astype(np.float64)) for last in (3, 4, 5, 7)]
    expected = -np.mean([row[token] for row, token in zip(rows, (4, 5, 7, 8), strict=True)])
    assert outcome.nll == pytest.approx(expected, rel=1e-15)  # one sum of four f64
    assert outcome.rank == (1 + 1 + 3 + 1) / 4 and not outcome.exact  # 7 after 5: behind 6 and, of two equal, 5
    assert reader.calls == [2, 1, 1, 1]  # the prompt at once, then decoding; the last token is never read
    assert ask(reader, Trial(4, 0, (5,), (6, 7, 8))).exact


def test_among_equals_greedy_decoding_takes_the_lowest_id() -> None:
    assert ask(Reader(blind=5), Trial(2, 0, (5,), (0,))).exact
    assert ask(Reader(blind=5), Trial(2, 0, (5,), (3,))).rank == 4


def test_means_by_length_and_depth() -> None:
    trials = [Trial(n, d, (5,), (6 + i,)) for n in (10, 20) for d in (0.0, 50.0) for i in range(2)]
    done: list[float] = []
    found = list(cells(trials, Reader(), done.append))
    assert [(c.length, c.depth, c.trials, c.exact, c.rank) for c in found] == [
        (n, d, 2, 0.5, 2.0) for n in (10, 20) for d in (0.0, 50.0)
    ]
    assert sum(done) == 120
    result = summary(found)
    assert result["exact"] == 0.5
    table = passkey_tables({"passkey": {"m.fsaw": result}})[0]
    assert [c.header for c in table.columns] == ["tokens", "depth 0 %", "depth 50 %"] and table.row_count == 2


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--lengths must be at least \d+ tokens, is 100"):
        Prompts(encode).trial(100, 0, 0)
    with pytest.raises(UsageError, match="the filler text of --passkey is empty"):
        Prompts(encode, "")
    with pytest.raises(UsageError, match="compares with another artifact"):
        run_passkey(tmp_path / "a", tmp_path, Wanted([512], [0]), 1, Reporter(quiet=True))
