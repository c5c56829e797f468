"""``fretsaw inspect --attention``: the table, the page, dense artifacts, and files that hold something else."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from fretsaw.backends.artifact import write_container
from fretsaw.ir.errors import ArtifactError
from fretsaw.passes.sparse.calibrate.report import pack_bits
from fretsaw.tools import cli
from fretsaw.tools.report.attention import read_attention
from tests.tools.test_cli import MANIFEST

HEAD = {"head": 0, "method": "x_attention", "options": {"threshold": 0.9}, "density": 0.125, "retained_mass": 0.9876,
        "error": 0.0123, "bound": 0.25}  # fmt: skip
MASK = np.tril(np.random.default_rng(3).random((13, 13)) < 0.4) | np.eye(13, dtype=bool)
FOUND: dict[str, Any] = {
    "tokens": 832, "source": "calib.txt",
    "layers": [{"layer": 2, "heads": [HEAD, {**HEAD, "head": 1, "density": 0.375, "method": "<b>tri</b>\x1b[31m"}]}],
    "masks": [{"layer": 2, "head": 1, "rows": 13, "bits": pack_bits(MASK)}],
}  # fmt: skip
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an artifact with this section, or without one; ``program`` adds to the manifest's."""

    def make(found: object = None, **program: object) -> Path:
        sections = [("program", [b"{}"]), ("code/llvm-x86-64-v3", [b"code"]), ("weights", [bytes(64)])]
        if found is not None:
            text = found if isinstance(found, str) else json.dumps(found)
            sections.insert(0, ("attention.json", [text.encode()]))
        path = tmp_path / "model.fsaw"
        whole = {**cast("dict[str, object]", MANIFEST["program"]), **program}
        write_container(path, {**MANIFEST, "program": whole}, sections)
        return path

    return make


def test_the_table(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", str(write(FOUND)), "--attention"]) == 0
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")][1:-1] for line in out.splitlines() if line.startswith("│")]
    assert rows[0] == ["2", "0", "x_attention", "12.5%", "0.9876", "0.012", "0.25", "threshold=0.9"]
    assert rows[1][:4] == ["", "1", "<b>tri</b>\\x1b[31m", "37.5%"] and "\x1b" not in out
    assert rows[-1][:5] == ["all", "", "mean, worst", "25.0%", "0.9876"]
    assert "2 heads on 832 tokens of calib.txt" in out


def test_json(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", str(write(FOUND)), "--attention", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sparse"] is True and found["attention"]["heads"][0] == {"layer": 2, **HEAD}


def test_the_page_holds_the_masks_and_escapes_what_the_file_says(write: Write, tmp_path: Path) -> None:
    page = tmp_path / "masks.html"
    assert cli.run(["inspect", str(write(FOUND)), "--attention", "--html", str(page)]) == 0
    text = page.read_text()
    assert "<b>tri" not in text and not re.search(r"(src|href)=|https?://|@[A-Z]+@", text)
    drawn = re.search(r'id="data">(.*?)</script>', text)
    assert drawn is not None
    (layer,) = json.loads(drawn[1])
    (head,) = layer["heads"]
    bits = np.unpackbits(np.frombuffer(base64.b64decode(head["bits"]), np.uint8))[: 13 * 13]
    np.testing.assert_array_equal(bits.reshape(13, 13), MASK)
    assert layer["layer"] == 2 and head["rows"] == 13 and "37.5% of blocks" in head["said"]


@pytest.mark.parametrize(
    ("program", "words", "sparse"),
    [
        ({}, "attention: dense in every layer\n", False),
        ({"chunk_align": 64}, "attention: sparse, not measured when it was compiled\n", True),
    ],
)
def test_without_the_section(
    write: Write, capsys: pytest.CaptureFixture[str], program: dict[str, int], words: str, sparse: bool
) -> None:
    path = write(None, **program)
    assert cli.run(["inspect", str(path), "--attention"]) == 0
    assert capsys.readouterr().out == words
    assert cli.run(["inspect", str(path), "--attention", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sparse": sparse, "attention": None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": -1}, "tokens is out of range"),
        ({"tokens": True}, "tokens has the wrong type: bool"),
        ({"source": 4}, "source has the wrong type: int"),
        ({"layers": {}}, "layers has the wrong type: dict"),
        ({"layers": [3]}, "heads is missing"),
        ({"layers": [{"layer": 0, "heads": [{**HEAD, "density": "much"}]}]}, "density has the wrong type: str"),
        ({"layers": [{"layer": 0, "heads": [{**HEAD, "error": 10**400}]}]}, "error is out of range"),
        ({"masks": [{"layer": 0, "head": 0, "rows": 5000, "bits": ""}]}, "rows must be 1 to 4096, is 5000"),
        ({"masks": [{"layer": 0, "head": 0, "rows": 9, "bits": "AAA"}]}, "bits is not base64"),
        ({"masks": [{"layer": 0, "head": 0, "rows": 9, "bits": "AAAA"}]}, "9 rows has 3 bytes, expected 11"),
    ],
)
def test_what_is_no_such_section(change: dict[str, object], words: str) -> None:
    with pytest.raises(ArtifactError, match=re.escape(words)):
        read_attention(json.dumps({**FOUND, **change}))


@pytest.mark.parametrize("text", ["", "[]", "{", "NaN", "[" * 100_000])
def test_no_json_object(text: str) -> None:
    with pytest.raises(ArtifactError, match="attention.json"):
        read_attention(text)


def test_views_that_exclude_each_other(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", str(write(FOUND)), "--attention", "--ir", "packed"]) == 2
    assert "--attention goes with --json or --html alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "want"),
    [
        ({}, None),
        ({"chunk_align": 64}, "none"),
        ({"dense": {"entry": "d", "until": 2048, "prompts": False, "single": True}}, "up to 2,048 tokens, decoding"),
        ({"dense": {"entry": "d", "until": 0, "prompts": True, "single": False}}, "prompts"),
        ({"dense": {"entry": "d", "until": 2**31 - 1, "prompts": True, "single": True}}, "all"),
    ],
)
def test_the_steps_that_are_dense(
    program: dict[str, object], want: str | None, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = {"chunk_align": 64, "chunk_tokens": 512, **program} if program else {}
    path = write(None, **rule)
    assert cli.run(["inspect", str(path)]) == 0
    found = [line.split("│")[2].strip() for line in capsys.readouterr().out.splitlines() if "dense steps" in line]
    assert found == ([] if want is None else [want])
