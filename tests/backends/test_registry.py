"""The registry: built-in backends and those of packages, loaded when they are used; what is wrong with one is said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fretsaw.backends.lowering import gaps
from fretsaw.backends.registry import DEFAULT, Registry
from fretsaw.ir.errors import UsageError

MODULE = "backend_of_a_package"
GOOD = """
from dataclasses import dataclass
from fretsaw.backends.backend import Backend

@dataclass(frozen=True)
class Options:
    size: int = 3

class Paper(Backend[Options]):
    "Programs on paper."
    name, options, phase = "paper", Options, "fused"
    def lowerings(self): return {}
    def build(self, graph, options, model, work): ...

backend = Paper()
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """``install(source, name)``: a package with one backend, as pip leaves it."""

    def write(source: str, name: str = "paper", at: str = f"{MODULE}:backend") -> None:
        info = tmp_path / "paper_backend-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: paper-backend\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[fretsaw.backends]\n{name} = {at}\n")
        (tmp_path / f"{MODULE}.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, MODULE, raising=False)

    return write


@pytest.mark.parametrize("name", list(Registry.built_in().backends))
def test_tables_of_built_in_backends_are_total(name: str) -> None:
    backend = Registry.built_in().find(name)
    assert gaps(backend.phase, backend.lowerings()) == ([], [])


def test_an_incomplete_table_is_seen() -> None:
    table = dict(Registry.built_in().find(DEFAULT).lowerings())
    table["cos"] = table.pop("linear")
    assert gaps("packed", table) == (["linear"], ["cos"])


def test_the_backend_of_a_package(install: Install) -> None:
    install(GOOD)
    registry = Registry.standard()
    assert list(registry.backends) == [DEFAULT, "paper"] and MODULE not in sys.modules  # known, not loaded
    assert registry.find("paper").phase == "fused" and registry.backends["paper"].origin == "package paper-backend 2.5"
    assert "paper" not in Registry.built_in().backends


def test_an_unknown_name_lists_those_that_exist(install: Install) -> None:
    install(GOOD)
    with pytest.raises(UsageError) as error:
        Registry.standard().find("papre")
    assert (error.value.what, error.value.hint) == (
        "there is no backend papre", f"did you mean paper? there are: {DEFAULT}, paper"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("from dataclasses", "import there_is_no_such_module\nfrom dataclasses",
         "cannot be loaded: ModuleNotFoundError: No module named 'there_is_no_such_module'"),
        ("from dataclasses", "raise SystemExit(3)\nfrom dataclasses", "cannot be loaded: SystemExit: 3"),
        ("backend = Paper()", "", f"cannot be loaded: AttributeError: module '{MODULE}' has no attribute 'backend'"),
        ("    def build(self, graph, options, model, work): ...", "",
         "cannot be loaded: TypeError: Can't instantiate abstract class Paper with abstract method build"),
        ("backend = Paper()", "backend = Paper", "is a class, not a backend"),
        ("backend = Paper()", "backend = 7",
         "is int, not a backend, it has no name, options, phase, passes, lowerings, settle, build"),
        ('"paper", Options', '"papyrus", Options', "calls itself papyrus"),
        ('"fused"', '"fussed"',
         "lowers from phase fussed, which does not exist; phases: captured, canonical, fused, packed"),
        ("size: int = 3", "size: int", "has options that no command line can fill: option size of the backend paper "
         "has no default"),
        ("size: int = 3", "size: dict = None", "has options that no command line can fill: option size of the backend "
         "paper has the type dict, which no option can have"),
    ],
)  # fmt: skip
def test_a_package_that_cannot_be_used_is_named(install: Install, old: str, new: str, says: str) -> None:
    assert old in GOOD
    install(GOOD.replace(old, new))
    registry = Registry.standard()
    with pytest.raises(UsageError) as error:
        registry.find("paper")
    assert str(error.value) == (
        f"UsageError: the backend paper of package paper-backend 2.5 {says}\n"
        f"  at    entry point paper = {MODULE}:backend\n  hint  repair or uninstall the package"
    )
    assert registry.find(DEFAULT).name == DEFAULT  # nobody else is in its way


def test_a_package_cannot_take_a_name(install: Install) -> None:
    install(GOOD, name=DEFAULT)
    with pytest.raises(UsageError) as error:
        Registry.standard()
    assert str(error.value) == (
        f"UsageError: the backend {DEFAULT} of package paper-backend 2.5 has the name of one that exists (built-in)\n"
        f"  at    entry point {DEFAULT} = {MODULE}:backend\n  hint  uninstall one of the two"
    )
