"""The check by planted faults: its data fits the tree, it tells found from missed, and it refuses to guess."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fretsaw.tools.dev.mutants.__main__ import check
from fretsaw.tools.dev.mutants.faults import Fault, Untrusted, load
from fretsaw.tools.dev.mutants.scratch import Scratch

SUM = """def add(a: int, b: int) -> int:
    return a + b


def near(a: int, b: int) -> bool:
    return abs(a - b) <= 2
"""
TESTS = """from fretsaw.ir.sums import add, near


def test_add():
    assert add(2, 3) == 5


def test_near():
    assert near(0, 1) and not near(0, 9)
"""
FOUND = Fault("sign", "ir/sums.py", "a slip of the finger", "a + b", "a - b", ("tests/test_sums.py",))
MISSED = Fault("edge", "ir/sums.py", "off by one", "<= 2", "<= 3", ("tests/test_sums.py", "tests/test_new.py"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with one module and its tests."""
    tree = tmp_path / "tree"
    for folder in ("ir", "tests"):
        (tree / folder).mkdir(parents=True)
    (tree / "ir" / "__init__.py").touch()
    (tree / "ir" / "sums.py").write_text(SUM)
    (tree / "tests" / "test_sums.py").write_text(TESTS)
    (tree / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)
    return tree


def scratch(tree: Path) -> Scratch:
    work = tree.parent / "work"
    work.mkdir()
    return Scratch(tree, work, sys.executable, 1)


@pytest.mark.parametrize("fault", load(), ids=lambda fault: fault.name)
def test_every_fault_fits_the_tree(fault: Fault, root: Path) -> None:
    text = (root / fault.file).read_text()
    assert fault.planted(text) != text
    assert fault.tests or fault.cases
    assert bool(fault.native) or not fault.cases
    assert all((root / test.partition("::")[0]).is_file() for test in fault.tests)


def test_a_fault_whose_text_has_gone_says_so() -> None:
    for text, times in (("nothing", 0), ("a + b, a + b", 2)):
        with pytest.raises(Untrusted, match=rf"fault sign: its old text is {times} times in ir/sums.py"):
            FOUND.planted(text)


def test_found_and_missed(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([FOUND, MISSED], scratch(tree), tmp_path / "table.json") == 1
    out = capsys.readouterr().out
    assert "tests/test_sums.py::test_add" in out
    assert "MISSED (there is no tests/test_new.py)" in out and "1 of 2 found" in out
    faults = json.loads((tmp_path / "table.json").read_text())["faults"]
    assert [f["found_by"] for f in faults] == ["tests/test_sums.py::test_add", None]
    assert (tree / "ir" / "sums.py").read_text() == SUM  # the tree itself is left alone
    assert (tmp_path / "work" / "ir" / "sums.py").read_text() == SUM


@pytest.mark.parametrize("line", ["    assert add(1, 1) == 3\n", "    import pytest\n    pytest.skip('no models')\n"])
def test_tests_that_cannot_judge_are_refused(line: str, tree: Path) -> None:
    (tree / "tests" / "test_sums.py").write_text(TESTS + line)
    with pytest.raises(Untrusted, match="tests fail or are skipped with nothing planted"):
        check([FOUND], scratch(tree), None)


def test_a_copy_that_imports_other_code_is_refused(tree: Path) -> None:
    copy = scratch(tree)
    (copy.root / ".links" / "sitecustomize.py").write_text("")
    (copy.root / ".links" / "fretsaw" / "ir").unlink()
    with pytest.raises(Untrusted, match="does not import its own code"):
        copy.check_imports(["ir/sums.py"])
