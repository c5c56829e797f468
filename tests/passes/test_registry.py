"""Where passes come from: the pipeline, a file, an installed package; what is refused, with file and line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fretsaw.ir.errors import UsageError
from fretsaw.passes.kit.options import plain
from fretsaw.passes.kit.registry import Registry
from fretsaw.passes.pipeline import ON_REQUEST, PIPELINE

PLUGIN = '''"""Write abs twice.

    %y = abs(%x)    ==>    %y = abs(abs(%x))
"""

from __future__ import annotations

from dataclasses import dataclass

from fretsaw.ir import Graph, Node
from fretsaw.passes.api import Edit, rule
from fretsaw.passes.canonical.dce import dce  # somebody else's pass: not one of this plugin


@dataclass(frozen=True)
class Options:
    times: int = 1


@rule(root="abs", phase="canonical", keeps="bits", options=Options)
def double_abs(root: Node, g: Graph, options: Options) -> Edit | None:
    return None
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


def test_built_in_passes_come_in_the_order_of_the_pipeline() -> None:
    found = Registry.built_in().all()
    first = dict.fromkeys(p.name for phase in PIPELINE.values() for p in phase)
    assert [p.name for p in found] == [*first, *(p.name for p in ON_REQUEST)]
    assert {p.origin for p in found} == {"built-in"}
    assert all(p.doc.startswith(p.doc.splitlines()[0]) and "==>" in p.doc for p in found)


def test_a_plugin_adds_its_own_passes(plugin: Path) -> None:
    before = Registry.built_in()
    after = before.with_plugin(plugin)
    assert len(after.all()) == len(before.all()) + 1 and "double_abs" not in before.passes
    found = after.find("double_abs")
    assert found.origin == f"plugin {plugin}" and found.doc.startswith("Write abs twice.")
    assert plain(found.configured({"times": "3"}).options) == {"times": 3}
    assert after.find("dce").origin == "built-in"


def test_two_plugins_of_one_file_name_live_side_by_side(plugin: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "mine.py"
    other.parent.mkdir()
    other.write_text(PLUGIN.replace("double_abs", "triple_abs").replace("times: int = 1", "times: int = 9"))
    registry = Registry.built_in().with_plugin(plugin).with_plugin(other)
    assert registry.find("double_abs").options != registry.find("triple_abs").options
    assert registry.with_plugin(plugin).find("double_abs").origin == f"plugin {plugin}"  # the same one again: no clash


def refused(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        Registry.built_in().with_plugin(path)
    return str(error.value).replace(str(path), "PATH")


def test_plugins_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    assert refused(path, "import json\n\nx = 1 / 0  # oh\n") == (
        "UsageError: the plugin PATH cannot be loaded: ZeroDivisionError: division by zero\n"
        "  at    PATH:3\n  > | x = 1 / 0  # oh"
    )
    assert refused(path, "def f(:\n") == (
        "UsageError: the plugin PATH cannot be loaded: SyntaxError: invalid syntax\n  at    PATH:1\n  > | def f(:"
    )
    assert refused(path, "import json\n") == (
        "UsageError: plugin PATH has no pass\n  at    PATH\n"
        "  hint  decorate a function with @rule(...) or @graph_pass(...)"
    )
    assert refused(path, PLUGIN.replace("double_abs", "raise_rope")) == (
        "UsageError: the pass raise_rope of plugin PATH has the name of a pass that exists (built-in)\n"
        "  at    PATH\n  hint  give its function another name"
    )
    assert refused(path, PLUGIN.replace('phase="canonical"', 'phase="lowered"')) == (
        "UsageError: double_abs belongs to phase lowered, which does not exist\n"
        "  at    PATH\n  hint  phases: canonical, fused, packed"
    )
    assert refused(path, PLUGIN.replace('keeps="bits"', 'keeps="most"')) == (
        "UsageError: double_abs keeps most, which is no class\n  at    PATH\n  hint  bits, algebra or budget"
    )
    assert refused(path, PLUGIN.replace('root="abs"', 'root="absolute"')) == (
        "UsageError: double_abs starts from the op absolute, which does not exist\n"
        "  at    PATH\n  hint  docs/ir.md lists the ops"
    )
    assert refused(path, PLUGIN.replace("times: int = 1", "times: int")) == (
        "UsageError: the plugin PATH cannot be loaded: option times of double_abs has no default\n"
        '  at    PATH:20\n  > | @rule(root="abs", phase="canonical", keeps="bits", options=Options)'
    )
    assert not [name for name in sys.modules if name.startswith("fretsaw_plugin_wrong") and "json" not in name][1:]


def test_a_missing_plugin(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        Registry.built_in().with_plugin(tmp_path / "none.py")
    assert str(error.value) == (
        f"UsageError: there is no plugin {tmp_path}/none.py\n  hint  --plugin wants the path of a Python file"
    )


def test_unknown_names_get_the_near_ones() -> None:
    with pytest.raises(UsageError) as error:
        Registry.built_in().find("merge_qvk")
    assert str(error.value) == (
        "UsageError: there is no pass merge_qvk\n"
        "  hint  did you mean merge_qkv? `fretsaw passes` lists them, --plugin FILE adds some"
    )
    with pytest.raises(UsageError) as error:
        Registry.built_in().find("zzz")
    assert error.value.hint == "`fretsaw passes` lists them, --plugin FILE adds some"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a pass, as pip leaves it: a module and its metadata on the path."""
    site = tmp_path / "site"
    info = site / "abs_passes-2.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abs-passes\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[fretsaw.passes]\nabs = abs_passes_fixture\n")
    (site / "abs_passes_fixture.py").write_text(PLUGIN.replace("double_abs", "packaged_abs"))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "abs_passes_fixture", raising=False)
    return site


def test_an_installed_package(installed: Path) -> None:
    found = Registry.standard().find("packaged_abs")
    assert found.origin == "package abs-passes 2.5"
    assert "packaged_abs" not in Registry.built_in().passes


def test_an_entry_point_may_name_one_pass(installed: Path) -> None:
    (installed / "abs_passes-2.5.dist-info" / "entry_points.txt").write_text(
        "[fretsaw.passes]\nabs = abs_passes_fixture:packaged_abs\n"
    )
    assert Registry.standard().find("packaged_abs").origin == "package abs-passes 2.5"


def test_a_broken_package_is_named(installed: Path) -> None:
    (installed / "abs_passes_fixture.py").write_text("import there_is_no_such_module\n")
    with pytest.raises(UsageError) as error:
        Registry.standard()
    assert str(error.value) == (
        "UsageError: package abs-passes 2.5 cannot be loaded: ModuleNotFoundError: No module named "
        "'there_is_no_such_module'\n  at    entry point abs = abs_passes_fixture\n"
        "  hint  repair or uninstall the package"
    )
