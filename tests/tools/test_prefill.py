"""``fretsaw bench``: the order of readings, medians and ratios, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fretsaw.tools import cli
from fretsaw.tools.prefill import Reading, measure, summary
from fretsaw.tools.prefill_table import prefill_table

OURS, THEIRS = Path("ours.fsaw"), Path("theirs.fsaw")
# Milliseconds to the first token by artifact and round: the medians are of different rounds than that of the ratio.
FIRST = {OURS: [10.0, 40.0, 20.0], THEIRS: [30.0, 60.0, 80.0]}


def scripted() -> tuple[list[tuple[Path, int]], list[dict[str, object]]]:
    asked: list[tuple[Path, int]] = []

    def read(artifact: Path, tokens: int) -> Reading:
        number = asked.count((artifact, tokens))
        asked.append((artifact, tokens))
        return Reading(tokens, FIRST[artifact][number] * tokens, 5.0 if artifact is OURS else 0.0)

    done: list[float] = []
    rounds = measure((OURS, THEIRS), (1, 100), 3, read, done.append)
    assert sum(done) == 3 * 2 * 101
    return asked, summary(rounds, OURS, THEIRS)


def test_readings_alternate() -> None:
    first = [(OURS, 1), (THEIRS, 1), (OURS, 100), (THEIRS, 100)]
    other = [(THEIRS, 1), (OURS, 1), (THEIRS, 100), (OURS, 100)]
    assert scripted()[0] == first + other + first


def test_medians_and_the_median_of_ratios() -> None:
    _, (short, long) = scripted()
    assert short["tokens"] == 1 and short["speedup"] == long["speedup"] == 3.0  # of 3, 1.5 and 4
    assert short["artifact"] == {"first_token_ms": 20.0, "prefill_tok_s": 50.0, "decode_tok_s": 200.0}
    assert long["against"] == {"first_token_ms": 6000.0, "prefill_tok_s": 1e5 / 6000, "decode_tok_s": 0.0}
    readings = long["readings"]
    assert isinstance(readings, dict) and [r["first_token_ms"] for r in readings[str(OURS)]] == [1000, 4000, 2000]


def test_alone_there_is_no_ratio() -> None:
    rounds = measure((OURS,), (7,), 1, lambda path, tokens: Reading(tokens, 2.0, 0.0), lambda n: None)
    found = summary(rounds, OURS, None)
    assert "speedup" not in found[0] and "against" not in found[0]
    about = {"artifact": str(OURS), "against": None, "rounds": 1, "prompts": "random tokens"}
    assert prefill_table(about, found).row_count == 1


def test_the_table_has_the_ratio_beside_ours() -> None:
    about = {"artifact": "a/m.fsaw", "against": "b/m.fsaw", "rounds": 3, "prompts": "x.txt"}
    table = prefill_table(about, scripted()[1])
    assert list(table.columns[5].cells) == ["3.00x", "", "3.00x", ""]
    assert [str(cell) for cell in table.columns[1].cells][:2] == ["a/m.fsaw", "b/m.fsaw"]  # the names alone are equal


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--prefill", "2k"), "'2k' is not a list of numbers of tokens"),
        (("--prefill", "0"), "'0' is not a list of numbers of tokens"),
        (("--against", "/nowhere.fsaw"), "'/nowhere.fsaw' does not exist"),
    ],
)
def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], words: str) -> None:
    artifact = tmp_path / "m.fsaw"
    artifact.write_bytes(b"")
    assert cli.run(["bench", str(artifact), *args]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
