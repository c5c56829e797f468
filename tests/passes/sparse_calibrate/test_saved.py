"""A survey in a file: what is read is what was written, and nothing else is taken for it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fretsaw.ir.errors import UsageError
from fretsaw.passes.evidence.feeds import Sequence
from fretsaw.passes.sparse.calibrate.choose import Table
from fretsaw.passes.sparse.calibrate.saved import SavedSurvey, graph_digest
from fretsaw.passes.sparse.calibrate.survey import Survey
from fretsaw.passes.sparse.methods.mean_pool import MeanPool
from fretsaw.passes.sparse.methods.moa import MoA
from tests.passes.planted import with_const
from tests.passes.sparse_calibrate.sharp import CALIB, packed

TEXT = Sequence("s", np.array(CALIB[:300]), "t", 0)
WAYS = (MoA(alpha=64, beta=0.0, dense_until=128), MeanPool(density=0.3, layers=(1,), dense_until=128))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("survey") / "s.survey"
    SavedSurvey(path)(packed(), WAYS, TEXT, 128)
    return path


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object) -> Survey:
        raise AssertionError("a survey was made")

    monkeypatch.setattr("fretsaw.passes.sparse.calibrate.saved.survey", never)


def test_it_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.survey"
    made = SavedSurvey(path)(packed(), WAYS, TEXT, 128)
    assert [p.name for p in tmp_path.iterdir()] == ["s.survey"]
    monkeypatch.setattr("fretsaw.passes.sparse.calibrate.saved.survey", None)
    read = SavedSurvey(path)(packed(), WAYS, TEXT, 128)
    assert read.candidates == made.candidates and (read.first, read.heads) == (128, 4)
    assert sorted(read.layers) == [0, 1] and made.layers[0].losses[1] is None
    for number in (0, 1):
        mine, theirs = read.layers[number], made.layers[number]
        assert mine.losses == theirs.losses and mine.selection == theirs.selection
        assert (mine.power == theirs.power).all() and (mine.block_mass == theirs.block_mass).all()
    assert (Table.of(read).loss == Table.of(made).loss).all()


@pytest.mark.usefixtures("unmeasured")
def test_what_is_about_something_else_is_refused(file: Path) -> None:
    keep, graph = SavedSurvey(file), packed()
    other = with_const(graph, "l1.down.weight", lambda w: w + 1e-3)
    with pytest.raises(UsageError, match="cannot be used: it is of another model") as error:
        keep(other, WAYS, TEXT, 128)
    assert "remove the file" in error.value.hint
    changed = replace(TEXT, ids=np.array([*CALIB[1:300], 0]))
    with pytest.raises(UsageError, match="it is of another text"):
        keep(graph, WAYS, changed, 128)
    with pytest.raises(UsageError, match="it is of another number of tokens: 300, wanted 299"):
        keep(graph, WAYS, replace(TEXT, ids=TEXT.ids[:299]), 128)
    with pytest.raises(UsageError, match=r"another first row \(dense_until\): 128, wanted 64"):
        keep(graph, WAYS, TEXT, 64)
    with pytest.raises(UsageError, match="of other candidates: 2, wanted 1"):
        keep(graph, WAYS[:1], TEXT, 128)
    with pytest.raises(UsageError, match=r"number 1 is \['mean_pool', .*'density': 0.3.*, wanted .*'density': 0.4"):
        keep(graph, (WAYS[0], replace(WAYS[1], density=0.4)), TEXT, 128)
    with pytest.raises(UsageError, match="number 1 is"):
        keep(graph, (WAYS[0], replace(WAYS[1], layers=(0, 1))), TEXT, 128)


def test_the_digest_is_that_of_nodes_and_weights() -> None:
    graph = packed()
    assert graph_digest(graph) == graph_digest(packed())
    assert graph_digest(with_const(graph, "l1.down.weight", lambda w: w + 0)) == graph_digest(graph)
    fewer = replace(graph, nodes=graph.nodes[:-1], outputs=(graph.nodes[-2].out,))
    assert graph_digest(fewer) != graph_digest(graph)


def rewritten(file: Path, path: Path, name: str, change: Callable[[bytes], bytes | None]) -> Path:
    """A copy of an archive with one member changed, or left out."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            data: bytes | None = old.read(member)
            if member == f"{name}.npy":
                assert data is not None
                data = change(data)
            if data is not None:
                new.writestr(member, data)
    return path


def npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=pickled)
    return out.getvalue()


def huge(raw: bytes) -> bytes:
    """An array that says it has 2^60 rows."""
    return raw.replace(b"(2, 4)", b"(%d, 4)" % (1 << 60)).replace(b" " * 18 + b"\n", b"\n")


def nan(raw: bytes) -> bytes:
    return npy(np.full_like(np.load(io.BytesIO(raw)), np.nan))


HOSTILE: dict[str, tuple[str, Callable[[bytes], bytes | None], str]] = {
    "missing": ("power", lambda raw: None, "power"),
    "short": ("losses", lambda raw: raw[:-8], "losses has another size than it says"),
    "long": ("losses", lambda raw: raw + b"x", "losses has another size than it says"),
    "shape": ("power", lambda raw: npy(np.zeros((2, 5))), r"power is float64\[2, 5\], and <f8\[2, 4\] is wanted"),
    "huge": ("power", huge, "damaged"),
    "dtype": ("power", lambda raw: npy(np.zeros((2, 4), np.float32)), "power is float32"),
    "pickle": ("power", lambda raw: npy(np.array([{}], object), pickled=True), r"power is object\[1\]"),
    "fortran": ("power", lambda raw: npy(np.asfortranarray(np.zeros((2, 4)))), "power is float64"),
    "nan": ("losses", nan, "losses has numbers that no survey gives"),
    "dense": ("losses", lambda raw: npy(np.full((2, 2, 4, 7), 1.5)), "densities over 1"),
    "no array": ("there", lambda raw: b"not an array", "damaged"),
    "no JSON": ("about", lambda raw: npy(np.frombuffer(b"{", np.uint8)), "damaged"),
    "a list": ("about", lambda raw: npy(np.frombuffer(b"[]", np.uint8)), "its description is no object"),
    "deep": ("about", lambda raw: npy(np.frombuffer(b"[" * 100_000, np.uint8)), "damaged"),
    "empty": ("about", lambda raw: npy(np.frombuffer(b"{}", np.uint8)), "another version of this file: None"),
    "too long": ("about", lambda raw: npy(np.zeros(1 << 21, np.uint8)), "its description is too long"),
}  # fmt: skip


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_survey_is_refused(case: str, file: Path, tmp_path: Path) -> None:
    name, change, why = HOSTILE[case]
    path = rewritten(file, tmp_path / "bad.survey", name, change)
    with pytest.raises(UsageError, match=why) as error:
        SavedSurvey(path)(packed(), WAYS, TEXT, 128)
    assert error.value.what.startswith(f"the survey {path} cannot be used: ")


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("raw", [b"", b"PK\x05\x06", b"text", b"\x93NUMPY\x01\x00"])
def test_what_is_no_archive_is_refused(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.survey"
    path.write_bytes(raw)
    with pytest.raises(UsageError, match="it is damaged, or no survey: "):
        SavedSurvey(path)(packed(), WAYS, TEXT, 128)
    with pytest.raises(UsageError, match="it is damaged, or no survey: "):
        SavedSurvey(tmp_path)(packed(), WAYS, TEXT, 128)


@pytest.mark.usefixtures("unmeasured")
def test_a_flipped_bit_is_seen(file: Path, tmp_path: Path) -> None:
    raw = bytearray(file.read_bytes())
    place = raw.index(b"losses.npy") + 300
    raw[place] ^= 0x10
    path = tmp_path / "bad.survey"
    path.write_bytes(raw)
    with pytest.raises(UsageError, match="Bad CRC-32"):
        SavedSurvey(path)(packed(), WAYS, TEXT, 128)


@pytest.mark.usefixtures("unmeasured")
def test_a_folder_that_is_none_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="s.survey cannot be written: .* is no folder"):
        SavedSurvey(tmp_path / "no" / "s.survey")(packed(1), WAYS[:1], TEXT, 128)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "s.survey.part").mkdir()
    with pytest.raises(UsageError, match="cannot write the survey .*: Is a directory"):
        SavedSurvey(tmp_path / "s.survey")(packed(1), WAYS[:1], TEXT, 128)


def test_the_description_is_plain(file: Path) -> None:
    with np.load(file, allow_pickle=False) as data:
        about = json.loads(bytes(data["about"]))
    assert about["tokens"] == 300 and about["candidates"][0][0] == "moa" and len(about["model"]) == 64
