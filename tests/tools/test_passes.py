"""`fretsaw passes` and the pass options of `fretsaw compile`: what is shown, whole error texts, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fretsaw.passes.kit.registry import Registry
from fretsaw.tools import cli

PLUGIN = '''"""Write silu as a product.

    %y = silu(%x)    ==>    %y = mul(%x, sigmoid(%x))

Why:    a test.
"""

from dataclasses import dataclass
from typing import Literal

from fretsaw.passes.api import Edit, OnePer, rule


@dataclass(frozen=True)
class Options:
    strength: float = 1.5
    mode: Literal["a", "b"] = "a"


@rule(root="silu", phase="fused", keeps="algebra", options=Options, sites=OnePer("silu"), after=("merge_qkv",),
      conflicts=("fold_norm_gain",))
def write_silu(root, g, options):
    edit = Edit()
    edit.rewrite(root, "mul", root["x"], edit.insert("sigmoid", root["x"], before=root))
    return edit
'''

DRAWING = PLUGIN.split('"""')[1].strip()


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLUGIN)
    return Path("mine.py")


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = cli.run(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


def test_the_list_has_a_line_for_every_pass(capsys: pytest.CaptureFixture[str], plugin: Path) -> None:
    code, out, _ = run(capsys, "passes", "--plugin", "mine.py")
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["name", "phase", "keeps", "runs", "what", "it", "does"]
    names = [p.name for p in Registry.standard().all()]
    assert [line.split()[0] for line in lines[1:]] == [*names, "write_silu"]
    columns = [lines[0].index(word) for word in ("phase", "keeps", "runs", "what")]
    assert all(line[c - 1] == " " and line[c] != " " for line in lines for c in columns)
    assert lines[-1].split(maxsplit=5) == ["write_silu", "fused", "algebra", "on", "request", "Write silu as a product"]


def test_one_pass_is_shown_whole(capsys: pytest.CaptureFixture[str], plugin: Path) -> None:
    code, out, _ = run(capsys, "passes", "write_silu", "--plugin", "mine.py")
    assert code == 0
    assert (
        out
        == f"""write_silu

{DRAWING}

phase:    fused
runs:     on request: --pass write_silu
keeps:    algebra
contract: one per silu
after:    merge_qkv
excludes: fold_norm_gain
origin:   plugin mine.py
source:   {plugin.resolve()}:20
options:
  strength  a number, default 1.5
  mode      one of a, b, default a
"""
    )


def test_every_built_in_pass_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    for p in Registry.built_in().all():
        code, out, _ = run(capsys, "passes", p.name)
        assert code == 0 and "==>" in out, p.name
        for section in ("Why:", "Keeps:", "Stops:", "Source:", "contract:", "origin:   built-in", "options:"):
            assert section in out, f"{p.name} has no {section}"
        source = next(line for line in out.splitlines() if line.startswith("source:")).removeprefix("source:").strip()
        assert Path(source.rpartition(":")[0]).is_file()


def test_methods_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from fretsaw.passes.sparse.methods import METHODS

    code, out, _ = run(capsys, "passes", "sparse_attention")
    listed = out[out.index("\nmethods:\n") :].splitlines()[2:]
    assert code == 0 and [line.split()[0] for line in listed[:-1]] == list(METHODS)
    first = "XAttention: blocks by the sums of their antidiagonals, as few as hold a share of the mass"
    assert f"  {'xattention':{max(map(len, METHODS))}}  {first}" in listed
    assert listed[-1] == "One of them with its options: fretsaw passes sparse_attention:method=dense"
    code, out, _ = run(capsys, "passes", "sparse_attention:method=xattention,stride=16")
    assert code == 0 and "methods:" not in out and "Source: XAttention, arXiv:2503.16428." in out
    assert "  stride        an integer, default 8, here 16\n      Side of a cell, a divisor of 64.\n" in out
    assert "  threshold     a number, default 0.9\n" in out


def test_every_option_of_every_method_is_explained() -> None:
    from fretsaw.passes.kit.option_docs import option_docs
    from fretsaw.passes.kit.options import describe
    from fretsaw.passes.sparse.methods import METHODS

    missing = [
        f"{name}: {o.name}" for name, m in METHODS.items() for o in describe(m.options())
        if not option_docs(m.options()).get(o.name)
    ]  # fmt: skip
    assert missing == []
    assert set(option_docs(METHODS["moa"].options())) == {o.name for o in describe(METHODS["moa"].options())}


def test_docs_of_options_are_those_of_the_nearest_class() -> None:
    from fretsaw.passes.kit.option_docs import option_docs

    class Base:
        """Base.

        Args:
            a: Of the base.
            b, c: One sentence
                in two lines: it goes on.

        Raises:
            ValueError: never.
        """

    class Own(Base):
        """Args:
        a: Its ``own``.
        """

    assert option_docs(Own()) == dict.fromkeys("bc", "One sentence in two lines: it goes on.") | {"a": "Its `own`."}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("sparse_attention:method=xatention", "did you mean xattention? methods: auto, dense, "),
        ("sparse_attention:method=landmark", "the method landmark is not built: it needs landmark tokens"),
        ("sparse_attention:threshold=1", "sparse_attention needs a method: sparse_attention:method=NAME"),
        ("dce:a=1", "dce takes no options, got a"),
        ("sparse_attention:", '--pass wants NAME or NAME:option=value,..., not "sparse_attention:"'),
    ],
)
def test_what_cannot_be_shown(capsys: pytest.CaptureFixture[str], name: str, error: str) -> None:
    code, out, err = run(capsys, "passes", name)
    assert code == 2 and not out and error in err


def test_methods_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    from fretsaw.passes.sparse.methods import METHODS

    data = json.loads(run(capsys, "passes", "sparse_attention", "--json")[1])
    assert list(data["methods"]) == list(METHODS)
    (stride,) = (o for o in data["methods"]["xattention"]["options"] if o["name"] == "stride")
    assert stride == {"name": "stride", "takes": "an integer", "default": 8, "doc": "Side of a cell, a divisor of 64."}
    own = json.loads(run(capsys, "passes", "sparse_attention:method=quest", "--json")[1])
    assert "methods" not in own and own["summary"] == data["summary"] and own["doc"].startswith("Quest: ")


def test_as_json(capsys: pytest.CaptureFixture[str], plugin: Path) -> None:
    code, out, _ = run(capsys, "passes", "write_silu", "--plugin", "mine.py", "--json")
    data = json.loads(out)
    assert code == 0 and data["options"] == [
        {"name": "strength", "takes": "a number", "default": 1.5},
        {"name": "mode", "takes": "one of a, b", "default": "a"},
    ]
    assert (data["always"], data["after"], data["conflicts"]) == (False, ["merge_qkv"], ["fold_norm_gain"])
    code, out, _ = run(capsys, "passes", "--json")
    assert [entry["name"] for entry in json.loads(out)] == [p.name for p in Registry.standard().all()]


def test_listing_loads_neither_torch_nor_tvm() -> None:
    program = (
        "import sys; from fretsaw.tools.cli import run; code = run(['passes']); "
        "assert not {'torch', 'tvm', 'transformers'} & set(sys.modules); sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


RECIPE = '[[pass]]\nname = "write_silu"\n\n[[pass]]\nname = "fold_norm_gain"\n'
REFUSED = [
    (["--pass", "write_slu"], "UsageError: there is no pass write_slu\n  at    --pass write_slu\n"
     "  hint  did you mean write_silu? `fretsaw passes` lists them, --plugin FILE adds some"),
    (["--pass", "write_silu:strength=a lot"],
     'UsageError: option strength of write_silu takes a number, not "a lot"\n'
     "  at    --pass write_silu:strength=a lot\n  hint  its default is 1.5"),
    (["--pass", "write_silu:mode=c"], 'UsageError: option mode of write_silu takes one of a, b, not "c"\n'
     "  at    --pass write_silu:mode=c\n  hint  its default is a"),
    (["--pass", "dce:x=1"], "UsageError: dce takes no options, got x\n  at    --pass dce:x=1\n"
     "  hint  see `fretsaw passes dce`"),
    (["--pass", "write_silu", "--pass", "write_silu"], "UsageError: write_silu is requested twice, and it runs once\n"
     "  at    --pass write_silu\n  hint  the first is at --pass write_silu: remove one"),
    (["--recipe", "r.toml"], "UsageError: write_silu and fold_norm_gain exclude each other\n  at    r.toml:5\n"
     "    |   4  [[pass]]\n  > |   5  name = \"fold_norm_gain\"\n  hint  write_silu is asked for at r.toml:2"),
    (["--recipe", "none.toml"], "UsageError: cannot read the recipe none.toml: No such file or directory"),
    (["--plugin", "none.py"], "UsageError: there is no plugin none.py\n"
     "  hint  --plugin wants the path of a Python file"),
    (["--no-check", "--max-kl", "0.1"],
     "UsageError: --max-kl and --min-top1 are checks; with --no-check nothing would hold them"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], plugin: Path, options: list[str], message: str
) -> None:
    """The checkpoint does not even exist."""
    Path("r.toml").write_text(RECIPE)
    code, out, err = run(capsys, "compile", "nowhere", "-o", "x.fsaw", "--plugin", "mine.py", *options)
    assert (code, out, err) == (2, "", f"fretsaw: {message}\n")


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "passes", "raise_ropes")
    assert (code, out) == (2, "") and err == (
        "fretsaw: UsageError: there is no pass raise_ropes\n"
        "  hint  did you mean raise_rope or raise_router? `fretsaw passes` lists them, --plugin FILE adds some\n"
    )


def test_the_documentation_lists_every_pass(root: Path) -> None:
    text = (root / "docs" / "passes.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("|") and line.count("|") == 6]
    listed = {row[2].strip().strip("`"): row[3].strip() for row in rows[2:]}
    assert listed == {p.name: p.keeps for p in Registry.built_in().all()}
