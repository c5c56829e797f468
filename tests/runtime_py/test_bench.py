"""``fretsaw bench`` in processes of its own, on the tiny artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fretsaw.tools import cli
from tests.runtime_py.conftest import Tiny

pytestmark = pytest.mark.native


def bench(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.run(["bench", *args])
    out, err = capsys.readouterr()
    return code, out, err


def test_two_artifacts(tiny: Tiny, binary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "short.txt"
    text.write_text("abc")
    other = tiny.variation(lambda manifest, sections: None)
    args = ("--prefill", "5,20", "--decode", "3", "--rounds", "2", "--text", str(text), "--threads", "1", "--json")
    code, out, err = bench(capsys, str(tiny.path), "--against", str(other), *args)
    assert code == 0, err
    found = json.loads(out)
    assert [entry["tokens"] for entry in found["prefill"]] == [5, 20] and found["prompts"] == str(text)
    for entry in found["prefill"]:
        assert all(len(some) == 2 for some in entry["readings"].values()) and len(entry["readings"]) == 2
        assert entry["speedup"] > 0 and entry["artifact"]["decode_tok_s"] > 0


def test_what_the_process_says_comes_through(
    tiny: Tiny, binary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = bench(capsys, str(tiny.path), "--prefill", "40", "--decode", "9", "--rounds", "1")
    assert code == 2 and f"measuring {tiny.path} failed: 40 + 9 tokens do not fit a context of 48" in err
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    code, _, err = bench(capsys, str(tiny.path), "--prefill", "4", "--decode", "0", "--text", str(empty))
    assert code == 2 and "the text of --text has no tokens" in err
